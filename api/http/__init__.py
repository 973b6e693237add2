"""HTTP code that all endpoints share: authentication, origins, errors, options, response bodies, gunicorn."""
