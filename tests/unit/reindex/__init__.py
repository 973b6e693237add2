"""Unit tests of `shared/reindex` and `shared/changes`."""
