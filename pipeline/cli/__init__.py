"""The `lookalike` command line: one module for each group of verbs."""
