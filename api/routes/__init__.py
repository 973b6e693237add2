"""The endpoints, one module per subject: jobs, batches, images, index, health, metrics, legacy API, page."""
