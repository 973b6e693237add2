"""Artifact store: what several processes share, in a directory or below a prefix of a bucket in an object store."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:  # its library is loaded where it is used
    from shared.artifacts.bucket import Bucket

Location: TypeAlias = Union[Path, "Bucket"]
