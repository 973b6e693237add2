"""Tests, and what keeps the documentation true."""
