"""A lock that is held and a file that does not come hold up who asked for them, and nobody else of the same process"""

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store
from shared.artifacts.store import MANIFEST
from tests.e2e.conftest import Stack, eventually
from tests.support.places import copy_installation, needs_files

pytestmark = needs_files(reason="a bucket has neither locks nor files")

_WITHIN_S = 60
_LOCKS = Path("/proc/locks")  # those that are waited for have an arrow


@pytest.fixture
def api(home: Path, tmp_path: Path) -> Iterator[Stack]:
    """The API alone, over an installation of its own."""
    copy_installation(home, tmp_path / "home")
    stack = Stack(tmp_path / "home", tmp_path / "valkey")
    stack.start("api", probe_every_s=0)
    eventually(lambda: _lives(stack), _WITHIN_S, "the API answers")
    yield stack
    stack.close()


def _lives(api: Stack) -> bool:
    return requests.get(f"{api.url}/livez", timeout=_WITHIN_S).ok


@contextmanager
def _slow(file: Path) -> Iterator[Callable[[], None]]:
    """Whoever reads the file waits until the end of the body; what it is given returns when somebody does so."""
    content, whole = file.read_bytes(), file.with_suffix(".whole")
    file.rename(whole)
    os.mkfifo(file)
    opened = list[int]()

    def is_read() -> bool:
        try:
            opened.append(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody has it open
            return False
        return True

    try:
        yield lambda: eventually(is_read, _WITHIN_S, f"{file.name} is read")
    finally:
        whole.replace(file)  # for who opens it now
        for descriptor in opened:
            os.write(descriptor, content)
            os.close(descriptor)


@pytest.mark.parametrize(
    ("method", "path", "slow"),
    [
        ("GET", "/v1/index/versions", "index"),
        ("GET", "/v1/index/versions/{index}/report", "index"),
        ("POST", "/v1/index/rollback", "promoted"),
        ("GET", "/v1/images/{photo}", "index"),
        ("DELETE", "/v1/images/{photo}", "promoted"),
        ("POST", "/v1/jobs/search", "bundle"),
    ],
)
def test_requests_are_answered_while_another_waits_for_a_file(
    api: Stack, photos: list[Path], method: str, path: str, slow: str
) -> None:
    index, bundle = index_store(api.home), answering_bundle(api.home)
    version = index.current()
    assert version
    assert bundle
    files = {
        "index": index.file(version, MANIFEST),
        "promoted": index.root / "CURRENT",
        "bundle": bundle_store(api.home).file(bundle, MANIFEST),
    }
    url = api.url + path.format(index=version, photo=photos[0].stem)
    form = {"image": photos[0].read_bytes()} if path.endswith("search") else None
    with ThreadPoolExecutor(1) as asking:
        with _slow(files[slow]) as wait_until_read:
            asked = asking.submit(requests.request, method, url, files=form, timeout=_WITHIN_S)
            wait_until_read()
            assert _lives(api)
            assert not asked.done()
        assert asked.result().status_code in (200, 202, 409), asked.result().text


@pytest.mark.skipif(not _LOCKS.exists(), reason="Linux tells who waits for a lock")
def test_requests_are_answered_while_promotions_wait_for_the_lock(api: Stack) -> None:
    store = index_store(api.home)
    version = store.current()
    n_asked = 20  # more than the threads there are for such calls
    with ThreadPoolExecutor(n_asked) as asking, (store.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        url = f"{api.url}/v1/index/versions/{version}/promote"
        asked = [asking.submit(requests.post, url, timeout=_WITHIN_S) for _ in range(n_asked)]
        blocked = f":{os.fstat(lock.fileno()).st_ino} "
        waits = lambda: any("->" in line and blocked in line for line in _LOCKS.read_text().splitlines())  # noqa: E731
        eventually(waits, _WITHIN_S, "a promotion waits for the lock")
        assert _lives(api)
        assert requests.get(f"{api.url}/v1/workers", timeout=_WITHIN_S).ok  # Redis is asked too
        assert not any(one.done() for one in asked)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert {one.result().status_code for one in asked} == {200}
