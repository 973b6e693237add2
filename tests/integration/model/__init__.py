"""Bundles, networks and runtimes."""
