"""Python client of a Lookalike service: `from lookalike import Client`. Imports nothing of the service itself."""

from lookalike.batches import BatchItem
from lookalike.client import AsyncClient, Client
from lookalike.errors import LookalikeError
from lookalike.jobs import AsyncJob, Job
from lookalike.models import EmbedResult, Neighbour, Progress, ReindexResult, SearchResult

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "BatchItem",
    "Client",
    "EmbedResult",
    "Job",
    "LookalikeError",
    "Neighbour",
    "Progress",
    "ReindexResult",
    "SearchResult",
]
