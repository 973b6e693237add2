"""What all endpoints share of HTTP: authentication, origins, problems, options, response bodies, gunicorn."""
