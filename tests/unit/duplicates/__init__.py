"""Unit tests of `shared/duplicates`."""
