"""Unit tests of `shared/catalogue`."""
