"""Every endpoint, a module a subject: jobs, batches, images, index, health, metrics, legacy API, page."""
