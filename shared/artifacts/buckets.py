"""Opens addresses of files and folders: paths of this machine, and URLs of object stores."""

from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts import Location
from shared.artifacts.addresses import SCHEME
from shared.artifacts.files import ObjectFile

if TYPE_CHECKING:
    from shared.artifacts.bucket import Bucket


class Buckets:
    """Opens addresses: paths of this machine, and `s3://bucket/prefix` with one `Bucket` for each.

    Args:
        cache: directory of this machine for what is fetched.

    Attributes:
        cache: the same.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self._known: dict[str, Bucket] = {}

    def location(self, address: str) -> Location:
        """A directory, or a prefix of a bucket.

        Raises:
            ValueError: it begins like the address of a bucket and is none.
        """
        if not address.startswith(SCHEME):
            return Path(address)
        if address not in self._known:
            from shared.artifacts.bucket import Bucket

            self._known[address] = Bucket(address, self.cache)
        return self._known[address]

    def file(self, address: str) -> Path | ObjectFile:
        """A file by its absolute path, or an object by its URL.

        Raises:
            ValueError: as `location`.
        """
        if not address.startswith(SCHEME):
            return Path(address)
        name, _, key = address.removeprefix(SCHEME).partition("/")
        return self.location(SCHEME + name) / key
