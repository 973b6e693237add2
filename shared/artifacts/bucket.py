"""A place in an object store, through obstore: read, write, compare and swap, and say in words what is wrong.

Credentials, region and endpoint come from the usual AWS_ variables. Knows nothing of what is kept there.
"""

import fcntl
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

import obstore
from obstore import exceptions as refusals
from obstore.store import S3Store

from shared.artifacts.addresses import SCHEME, parse_bucket_url
from shared.errors import ArtifactUnwritable, StoreUnavailable

_PART_BYTES = 8 << 20  # of an upload
_PIECE_BYTES = 8 << 20  # of a download
_UPLOADS = 4  # parts on their way at the same time
_QUICKLY_S = 4  # an answer somebody waits for
_RETRIES = 3
_SILENT_S = 30  # a body of any length, as long as it goes on
_SEEN_FOR_S = 1.0
_BRIDGED_S = 30.0
_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = (refusals.PermissionDeniedError, refusals.UnauthenticatedError)

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")


class Stored(NamedTuple):
    """What a listing tells of an object.

    Attributes:
        modified_at: by the store's clock, seconds since the epoch.
    """

    key: str
    n_bytes: int
    modified_at: float
    etag: str


@dataclass
class _Seen:
    """What was there, when, and when to look again; on the monotonic clock."""

    value: str | None
    at: float
    ask_at: float


class Bucket:
    """Objects under one prefix of one bucket.

    Every method raises StoreUnavailable when the store does not answer or refuses, and FileNotFoundError when there is
    no such object.

    Args:
        url: `s3://bucket/prefix`.
        cache: directory of this machine for what is fetched.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.bucket, self.prefix = parse_bucket_url(url)
        self.url = f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")
        self.cache = cache
        self._seen: dict[str, _Seen] = {}

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """For people."""
        return (self.prefix or self.bucket).rpartition("/")[2]

    def lately(self, name: str, ask: Callable[[], str | None]) -> str | None:
        """What `ask` gives, or gave within the last second: under a name, because many ask for the same.

        While one asks, and for half a minute in which the store does not answer, the others get what was seen last.
        """
        now = time.monotonic()
        seen = self._seen.get(name)
        if seen and now < seen.ask_at:
            return seen.value
        if seen:
            seen.ask_at = now + _BRIDGED_S
        try:
            value = ask()
        except StoreUnavailable:
            if seen is None or now > seen.at + _BRIDGED_S:
                self.forget(name)
                raise
            seen.ask_at = time.monotonic() + _SEEN_FOR_S
            return seen.value
        self._seen[name] = _Seen(value, now, now + _SEEN_FOR_S)
        return value

    def forget(self, name: str) -> None:
        """Ask anew the next time."""
        self._seen.pop(name, None)

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return self._call(lambda: bytes(obstore.get(self._lasting, key).bytes()))

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The content of a small object, and the tag that `swap` compares."""

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._quick, key)
            return bytes(found.bytes()), found.meta["e_tag"] or ""

        return self._call(read)

    def look(self, key: str) -> Stored:
        """What can be told of an object without reading it."""
        return self._call(lambda: _stored(obstore.head(self._quick, key)))

    def has(self, key: str) -> bool:
        try:
            self.look(key)
        except FileNotFoundError:
            return False
        return True

    def write(self, key: str, content: bytes) -> None:
        """Put an object there, whatever was."""
        self._call(lambda: obstore.put(self._lasting, key, content), writing=True)

    def upload(self, key: str, file: Path) -> None:
        """Put a file there, in parts where it is large; nobody sees half of it."""
        put = obstore.put
        self._call(
            lambda: put(self._lasting, key, file, chunk_size=_PART_BYTES, max_concurrency=_UPLOADS), writing=True
        )

    def swap(self, key: str, content: bytes, *, tag: str | None) -> bool:
        """Put a small object there if what is there has that tag, or if nothing is; returns whether it did.

        An answer may be lost on its way and the call be repeated underneath: then False is told of a swap that was.
        """

        def swap() -> bool:
            try:
                obstore.put(self._quick, key, content, mode="create" if tag is None else {"e_tag": tag})
            except (refusals.AlreadyExistsError, refusals.PreconditionError):
                return False
            return True

        return self._call(swap, writing=True)

    def below(self, prefix: str) -> list[Stored]:
        """Every object below a prefix, in order of their keys."""

        def found() -> list[Stored]:
            return sorted(_stored(meta) for chunk in obstore.list(self._quick, f"{prefix}/") for meta in chunk)

        return self._call(found)

    def top(self) -> list[str]:
        """Names of objects and of prefixes that have no `/`."""

        def found() -> list[str]:
            listed = obstore.list_with_delimiter(self._quick)
            return sorted({*listed["common_prefixes"], *(meta["path"] for meta in listed["objects"])})

        return self._call(found)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        if keys:
            self._call(lambda: obstore.delete(self._quick, keys), writing=True)

    def fetch(self, key: str, path: Path, *, sha256: str, n_bytes: int) -> bool:
        """Bring an object here, whole or not at all; goes on where an earlier call was cut, whosever it was.

        Returns:
            whether its content is as said; if not, nothing is at `path`.

        Raises:
            OSError: it cannot be written here.
        """
        return self._call(lambda: self._fetch(key, path, sha256, n_bytes))

    def _fetch(self, key: str, path: Path, sha256: str, n_bytes: int) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn_at(path) as part:
            if path.is_file():
                return True  # another process was quicker
            for start in (min(part.tell(), n_bytes), 0):
                part.seek(0)
                digest = hashlib.sha256()
                for chunk in _chunks(part, start):
                    digest.update(chunk)
                part.truncate(start)
                if start < n_bytes:
                    for piece in obstore.get(self._lasting, key, options={"range": {"offset": start}}).stream(
                        min_chunk_size=_PIECE_BYTES
                    ):
                        digest.update(piece)
                        part.write(piece)
                if digest.hexdigest() == sha256:
                    part.flush()
                    os.fsync(part.fileno())
                    Path(part.name).replace(path)
                    return True
            Path(part.name).unlink()
            return False

    def _call(self, call: Callable[[], T], *, writing: bool = False) -> T:
        return _aside(lambda: self._in_words(call, writing))

    def _in_words(self, call: Callable[[], T], writing: bool) -> T:
        try:
            return call()
        except FileNotFoundError as exc:
            if "NoSuchBucket" not in str(exc):
                raise
            raise StoreUnavailable(f"{self.url}: there is no such bucket; make it, or name another") from exc
        except _DENIED as exc:
            error = ArtifactUnwritable if writing else StoreUnavailable
            raise error(f"{self.url} refuses access ({_code(exc)}); check the AWS_ variables and the policy") from exc
        except refusals.BaseError as exc:
            if "NoSuchBucket" in str(exc):
                raise StoreUnavailable(f"{self.url}: there is no such bucket; make it, or name another") from exc
            raise StoreUnavailable(f"{self.url} does not answer ({_code(exc)}); try again") from exc

    @cached_property
    def _quick(self) -> S3Store:
        return self._connected(timeout_s=_QUICKLY_S, silent_s=_QUICKLY_S)

    @cached_property
    def _lasting(self) -> S3Store:
        return self._connected(timeout_s=86_400, silent_s=_SILENT_S)

    def _connected(self, *, timeout_s: float, silent_s: float) -> S3Store:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_QUICKLY_S),
                "read_timeout": timedelta(seconds=silent_s),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=silent_s)},
        )


def _stored(meta: "ObjectMeta") -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"].timestamp(), meta["e_tag"] or "")


@contextmanager
def _turn_at(path: Path) -> Iterator[IO[bytes]]:
    """What there is of a file that is being fetched, for one process at a time."""
    while True:
        with path.with_name(f".{path.name}.part").open("a+b") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if os.fstat(part.fileno()).st_nlink:  # nobody has removed it while its turn was waited for
                part.seek(0, os.SEEK_END)
                yield part
                return


def _chunks(file: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    while n_bytes and (chunk := file.read(min(n_bytes, _PIECE_BYTES))):
        n_bytes -= len(chunk)
        yield chunk


def _code(error: Exception) -> str:
    """What the store calls it; the whole text would show addresses and key ids."""
    found = _CODE.search(str(error))
    return found[1] if found else "no connection" if "error sending request" in str(error) else type(error).__name__


def _aside(call: Callable[[], T]) -> T:
    """Make a call that blocks its thread. Where greenlets share one, in a thread apart: the others go on."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return call()
    result: T = sys.modules["gevent"].get_hub().threadpool.apply(call)
    return result
