"""The API contract as data, and the OpenAPI 3.1 document made of it."""
