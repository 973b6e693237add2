"""The OpenAPI 3.1 document: operations beside their routes, schemas from models, and what is made of both."""
