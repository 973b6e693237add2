"""Everything that lies in Redis, a file per subject. Keys are built nowhere else."""
