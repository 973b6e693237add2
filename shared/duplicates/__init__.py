"""Duplicates: photos of different listings that are the same file, picture or thing."""
