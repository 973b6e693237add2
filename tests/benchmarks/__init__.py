"""Compared in one run; never part of make test."""
