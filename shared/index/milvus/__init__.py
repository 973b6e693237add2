"""Milvus as the place of an index: its server, an index version in it, and how that is filled."""
