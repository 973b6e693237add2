"""Where the installations of end-to-end tests lie: in their homes, or where TEST_STORE and TEST_INDEX say.

`TEST_STORE=s3` keeps artifacts in an object store, each installation's below a prefix of its own; `TEST_INDEX=milvus`
keeps vectors in a Milvus. The same tests run either way.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from shared.artifacts import Location
from shared.artifacts.bucket import Bucket
from shared.index.milvus.server import MilvusServer
from tests.support.milvus import MilvusLite
from tests.support.object_store import ObjectStore

IN_BUCKET = os.environ.get("TEST_STORE") == "s3"
IN_MILVUS = os.environ.get("TEST_INDEX") == "milvus"

# With a reason: why the subject of a test is there in one of these places only.
needs_files = partial(pytest.mark.skipif, IN_BUCKET)
needs_faiss = partial(pytest.mark.skipif, IN_MILVUS)
needs_neither = partial(pytest.mark.skipif, IN_BUCKET or IN_MILVUS)

_everything: list[Bucket] = []  # at most one of each
_milvus: list[MilvusLite] = []


@contextmanager
def kept_in(bucket_of: ObjectStore, cache: Path) -> Iterator[None]:
    """Installations lie in this store from now on; `cache` is that of the tests themselves, as of another host."""
    with mock.patch.dict(os.environ, bucket_of.environment()):
        _everything.append(Bucket(bucket_of.make_bucket(), cache))
        yield
        _everything.pop()


@contextmanager
def searched_in(server: MilvusLite) -> Iterator[None]:
    """Vectors lie in this Milvus from now on."""
    _milvus.append(server)
    yield
    _milvus.pop()


def place_of(home: Path) -> dict[str, object]:
    """The settings that say where the installation of a home lies."""
    store = {"store": f"{_everything[0].url}/{_prefix(home)}"} if _everything else {}
    return {**store, **({"index": _milvus[0].address} if _milvus else {})}


def location_of(home: Path) -> Location:
    """Where the artifacts of a home's installation are, for the test itself."""
    if not _everything:
        return home
    prefix = _prefix(home)
    return Bucket(f"{_everything[0].url}/{prefix}", _everything[0].cache / prefix)


def copy_installation(home: Path, copy: Path) -> None:
    """Make another installation of the same content; what had only been fetched to the home is not there."""
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("fetched"))
    for everything in _everything:
        for stored in everything.below(_prefix(home)):
            everything.write(stored.key.replace(_prefix(home), _prefix(copy), 1), everything.read(stored.key))


def milvus_server() -> MilvusServer | None:
    """Where vectors lie; None where they lie in files."""
    return _milvus[0].connect() if _milvus else None


def _prefix(home: Path) -> str:
    return hashlib.sha256(bytes(home)).hexdigest()[:16]
