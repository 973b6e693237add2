"""Chooses the backend of a location: a directory's or a bucket's."""

from pathlib import Path

from shared.artifacts import Location
from shared.artifacts.backend import Backend, DirectoryBackend
from shared.errors import ArtifactError


def backend_at(location: Location, kind: str = "", *, damaged: type[ArtifactError] = ArtifactError) -> Backend:
    """The files and versions of one kind of an installation, or everything at a location.

    Args:
        damaged: error for a promotion log that cannot be read.
    """
    if isinstance(location, Path):
        return DirectoryBackend(location / kind, damaged=damaged)
    from shared.artifacts.bucket_backend import BucketBackend

    return BucketBackend(location, kind, damaged=damaged)
