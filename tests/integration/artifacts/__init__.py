"""Artifact stores: directories and a real S3 server."""
