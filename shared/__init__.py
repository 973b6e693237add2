"""What the other rooms agree on. Imports none of api, worker, pipeline."""
