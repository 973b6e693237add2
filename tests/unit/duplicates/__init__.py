"""Unit tests of `shared/photos`."""
