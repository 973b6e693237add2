"""Objects in a bucket of an S3 store, through obstore: read, write, list, compare-and-swap, and errors in plain words.

Credentials, region and endpoint come from the usual AWS_ variables.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import obstore
from obstore import exceptions as refusals
from obstore.store import S3Store

from shared.artifacts.addresses import SCHEME, parse_bucket_url
from shared.artifacts.files import ObjectFile, Stored
from shared.blocking import to_thread
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


@dataclass
class _Seen:
    """A value that was asked for, when, and when to ask again; on the monotonic clock."""

    value: str | None
    at: float
    ask_at: float


class Bucket:
    """Objects below one prefix of one bucket; keys are told from that prefix.

        bucket = Bucket("s3://models/lookalike", cache=Path("/var/cache/lookalike"))
        bucket.write("catalogue", b"s3://photos/dump")

    Every method raises StoreUnavailable when the store does not answer or refuses, ArtifactUnwritable when it refuses a
    write, and FileNotFoundError when there is no such object.

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

    def __truediv__(self, key: str) -> ObjectFile:
        return ObjectFile(self, key)

    @property
    def name(self) -> str:
        """The last part of the URL, for messages."""
        return (self.prefix or self.bucket).rpartition("/")[2]

    def lately(self, name: str, ask: Callable[[], str | None]) -> str | None:
        """What `ask` returns, or returned within the last second, by any thread.

        While one thread asks, and for half a minute in which the store does not answer, all get the last value.

        Args:
            name: the same for all who ask for the same.
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
        """Let `lately` ask anew the next time."""
        self._seen.pop(name, None)

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return self._call(lambda: bytes(obstore.get(self._lasting, key).bytes()))

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The content of a small object, and its ETag for `swap`."""

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._quick, key)
            return bytes(found.bytes()), found.meta["e_tag"] or ""

        return self._call(read)

    def stat(self, key: str) -> Stored:
        """Size, time and ETag of an object, without reading it."""
        return self._call(lambda: _stored(obstore.head(self._quick, key)))

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.stat(key)
        except FileNotFoundError:
            return False
        return True

    def write(self, key: str, content: bytes) -> None:
        """Write an object, over what was there."""
        self._call(lambda: obstore.put(self._lasting, key, content), writing=True)

    def upload(self, key: str, file: Path) -> None:
        """Write an object from a file, in parts where it is large; nobody sees half of it."""
        put = obstore.put
        self._call(
            lambda: put(self._lasting, key, file, chunk_size=_PART_BYTES, max_concurrency=_UPLOADS), writing=True
        )

    def swap(self, key: str, content: bytes, *, tag: str | None) -> bool:
        """Compare-and-swap: write a small object if nobody else has written it; returns whether it did.

        An answer may be lost on its way and the call be repeated underneath: then False is returned for a swap that
        was made.

        Args:
            tag: the ETag that the object must have; None: there must be none.
        """

        def swap() -> bool:
            try:
                obstore.put(self._quick, key, content, mode="create" if tag is None else {"e_tag": tag})
            except (refusals.AlreadyExistsError, refusals.PreconditionError):
                return False
            return True

        return self._call(swap, writing=True)

    def below(self, prefix: str) -> list[Stored]:
        """Every object below a prefix, or every object if it is empty, in order of their keys."""

        def found() -> list[Stored]:
            chunks = obstore.list(self._quick, f"{prefix}/" if prefix else None)
            return sorted(_stored(meta) for chunk in chunks for meta in chunk)

        return self._call(found)

    def top(self, prefix: str = "") -> list[str]:
        """What follows a prefix, which ends in `/` or is empty, up to the next `/`; sorted."""

        def found() -> list[str]:
            listed = obstore.list_with_delimiter(self._quick, prefix or None)
            paths = {*listed["common_prefixes"], *(meta["path"] for meta in listed["objects"])}
            return sorted(path.removeprefix(prefix) for path in paths)

        return self._call(found)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        if keys:
            self._call(lambda: obstore.delete(self._quick, keys), writing=True)

    def fetch(self, key: str, path: Path, *, sha256: str, n_bytes: int) -> bool:
        """Download an object, whole or not at all; resumes where an earlier call was cut, of any process.

        Returns:
            whether its content has that SHA-256; if not, nothing is at `path`.

        Raises:
            OSError: `path` cannot be written.
        """
        return self._call(lambda: self._fetch(key, path, sha256, n_bytes))

    def _fetch(self, key: str, path: Path, sha256: str, n_bytes: int) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn_at(path) as part:
            if path.is_file():  # another process was quicker
                Path(part.name).unlink()
                return True
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
        return to_thread(lambda: self._in_words(call, writing))

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
    place = path.with_name(f".{path.name}.part")
    while True:
        with place.open("a+b") as part:
            fcntl.flock(part, fcntl.LOCK_EX)
            if _lies_at(place, part):  # nobody has removed it, or moved it to `path`, while its turn was waited for
                part.seek(0, os.SEEK_END)
                yield part
                return


def _lies_at(place: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _chunks(file: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    while n_bytes and (chunk := file.read(min(n_bytes, _PIECE_BYTES))):
        n_bytes -= len(chunk)
        yield chunk


def _code(error: Exception) -> str:
    """What the store calls it; the whole text would show addresses and key ids."""
    found = _CODE.search(str(error))
    return found[1] if found else "no connection" if "error sending request" in str(error) else type(error).__name__
