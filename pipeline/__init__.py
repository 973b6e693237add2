"""The factory: raw dump -> model -> index, and the command line."""
