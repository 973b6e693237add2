"""One contract for files by name, in a directory or below a prefix of a bucket."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts import Location
from shared.artifacts.backend import Backend
from shared.artifacts.backends import backend_at
from shared.artifacts.bucket import Bucket
from shared.artifacts.files import state_of
from shared.artifacts.installation import installation_id


@pytest.fixture(params=["directory", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "bucket":
        return Bucket(request.getfixturevalue("bucket_url"), cache=tmp_path / "cache")
    return tmp_path / "home"


@pytest.fixture
def backend(location: Location) -> Backend:
    return backend_at(location, "photos")


def test_an_installation_has_one_id_whoever_asks_first_and_wherever_it_is(location: Location, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        [found] = set(pool.map(installation_id, [location] * 32))
    assert found
    assert installation_id(tmp_path / "other") != found
    if isinstance(location, Path):
        assert installation_id(location.rename(tmp_path / "moved")) == found
        (tmp_path / "a file").touch()
        assert installation_id(tmp_path / "a file" / "home") == ""


def test_a_file_is_read_back_and_written_over(backend: Backend, location: Location) -> None:
    assert not backend.at("a/1.png").is_file()
    with pytest.raises(FileNotFoundError):
        backend.at("a/1.png").read_bytes()
    backend.write("a/1.png", b"one")
    first = state_of(backend.at("a/1.png"))
    backend.write("a/1.png", b"another")
    assert backend.at("a/1.png").is_file()
    assert backend.at("a/1.png").read_bytes() == (location / "photos" / "a/1.png").read_bytes() == b"another"
    assert state_of(backend.at("a/1.png")) != first


def test_files_are_listed_below_their_kind_only(backend: Backend, location: Location) -> None:
    assert backend.top() == [] == backend.entries()
    for name in ("b/2", "a/c/3", "a/1", "ab"):
        backend.write(name, name.encode())
    backend_at(location).write("other", b"of another kind")
    assert [(stored.key, stored.n_bytes) for stored in backend.entries()] == [
        ("a/1", 3),
        ("a/c/3", 5),
        ("ab", 2),
        ("b/2", 3),
    ]
    assert [stored.key for stored in backend.entries("a")] == ["a/1", "a/c/3"]
    assert backend.top() == ["a", "ab", "b"]
    assert backend_at(location).top() == ["other", "photos"]
    assert len(backend_at(location).entries()) == 5


def test_removing_passes_over_what_is_not_there(backend: Backend) -> None:
    backend.write("a/1", b"1")
    backend.remove(["a/1", "a/2"])
    assert backend.entries() == []
    backend.remove([])


def test_sweeping_removes_what_is_old_and_not_kept(backend: Backend, location: Location) -> None:
    for name in ("a/old", "b/kept"):
        backend.write(name, b"x")
    assert backend.sweep(3600) == 0
    if isinstance(location, Path):  # what a write that was killed left
        (location / "photos" / "a" / ".0123.tmp").write_bytes(b"half")
        for path in [*location.rglob("*")]:
            os.utime(path, (time.time() - 7200,) * 2)
    swept = backend.sweep(3600 if isinstance(location, Path) else -60, keep=lambda name: name == "b/kept")
    assert swept == 1 + isinstance(location, Path)
    assert [stored.key for stored in backend.entries()] == ["b/kept"]
