"""What a snapshot keeps of each photo beside its vector: its row, the attributes that searches filter by, facets."""
