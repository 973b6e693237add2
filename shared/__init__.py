"""Code shared by api, worker and pipeline: contracts, job state, artifacts, index, model. Imports none of the three."""
