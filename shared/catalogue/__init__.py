"""The catalogue: its categories, its raw tables, its photos on disk."""
