"""Where things lie that several processes share: a directory, or a place in an object store."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:  # its library is loaded where it is used
    from shared.artifacts.bucket import Bucket

Location: TypeAlias = Union[Path, "Bucket"]
