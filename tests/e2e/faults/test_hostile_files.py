"""Hostile and odd uploads against the real processes: every answer in time and in form, and nobody dies of it."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from mmap import PAGESIZE
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import requests

from tests.e2e.conftest import Stack
from tests.e2e.support.hostile_file import ACCEPTED, HostileFile
from tests.e2e.support.hostile_files import hostile_files, large_files
from tests.e2e.support.memory import tree
from tests.e2e.support.photo_bytes import PLAIN

WITHIN_S = 5
MOST_MIB = 700
BUSY = frozenset({429})  # large photos may be put off for as long as the machine has other things to do
BOUNDARY = b"----boundary-of-the-hostile-files"


@pytest.fixture(scope="module")
def logged(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A service of this module's own, and the file that both its processes log to."""
    directory = tmp_path_factory.mktemp("hostile")
    stack = Stack(home, directory / "valkey", directory / "log")
    stack.start("worker")
    stack.start("api")
    stack.wait_ready()
    yield stack, directory / "log"
    stack.close()


@pytest.fixture(scope="module")
def memory(logged: tuple[Stack, Path]) -> Iterator["Memory"]:
    memory = Memory(logged[0].processes["api"].pid)
    memory.start()
    yield memory
    memory.stop()


def post(stack: Stack, file: HostileFile) -> requests.Response:
    """Post it with the file name's very bytes."""
    head = b'Content-Disposition: form-data; name="image"; filename="' + file.filename + b'"\r\n\r\n'
    return requests.post(
        stack.url + "/v1/jobs/embed",
        data=b"--" + BOUNDARY + b"\r\n" + head + file.content + b"\r\n--" + BOUNDARY + b"--\r\n",
        headers={"Prefer": "wait=20", "Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"},
        timeout=60,
    )


def objections(file: HostileFile, answer: requests.Response, seconds: float) -> Iterator[str]:
    """What is wrong with an answer."""
    if seconds > WITHIN_S:
        yield f"{file.claim}: {seconds:.1f} s"
    if answer.status_code not in file.statuses | BUSY:
        yield f"{file.claim}: {answer.status_code} {answer.text[:200]}"
    if re.search(r"Traceback|File \"|site-packages|/tmp/|/usr/|passwd|X-Injected|egpj|<img", answer.text):
        yield f"{file.claim}: {answer.text[:300]}"
    if answer.status_code >= 400:
        problem = answer.json()
        if answer.headers["Content-Type"] != "application/problem+json" or not problem["code"]:
            yield f"{file.claim}: not a problem"
    elif answer.json()["status"] != "succeeded":
        yield f"{file.claim}: {answer.text[:200]}"


def embedding(answer: requests.Response) -> "np.typing.NDArray[np.float64]":
    return np.array(answer.json()["result"]["embedding"])


class Memory(Thread):
    """The most memory that a process and its children have had together, looked at every few milliseconds."""

    def __init__(self, leader: int) -> None:
        super().__init__(daemon=True)
        self.most: dict[int, int] = {}
        self._leader, self._stopped = leader, Event()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            now = resident(self._leader)
            if sum(now.values()) > sum(self.most.values()):
                self.most = now

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def resident(leader: int) -> dict[int, int]:
    """Resident MiB of a process and of each that it has forked."""
    found = {}
    for pid in tree(leader):
        with suppress(OSError):  # it ended as we looked
            found[pid] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGESIZE >> 20
    return found


@pytest.fixture(scope="module")
def checks(logged: tuple[Stack, Path], memory: Memory) -> "Checks":
    return Checks(logged[0])


class Checks:
    """Posts files and keeps what was wrong with the answers."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._plain: dict[bytes, np.typing.NDArray[np.float64]] = {}

    def __call__(self, file: HostileFile) -> list[str]:
        for _ in range(3):
            started = time.monotonic()
            answer = post(self._stack, file)
            seconds = time.monotonic() - started
            if answer.status_code != 429:
                break
            time.sleep(int(answer.headers["Retry-After"]))  # the machine is busy with something else
        wrong = [*objections(file, answer, seconds)]
        if file.twin and answer.ok:
            if file.twin not in self._plain:
                self._plain[file.twin] = embedding(post(self._stack, HostileFile("a twin", file.twin, file.statuses)))
            cosine = float(embedding(answer) @ self._plain[file.twin])
            if cosine < 0.98:  # a projection magnifies what lossy formats lose; another photo is far below
                wrong.append(f"{file.claim}: cosine {cosine:.3f} to its plain twin")
        return wrong


def test_every_file_is_answered_in_time_and_in_form_by_several_at_once(checks: Checks) -> None:
    files = hostile_files()
    assert len(files) >= 200
    with ThreadPoolExecutor(3) as clients:
        assert [objection for wrong in clients.map(checks, files) for objection in wrong] == []


def test_large_photos_are_answered_in_time_one_by_one(checks: Checks) -> None:
    assert [objection for file in large_files() for objection in checks(file)] == []


def test_large_photos_all_at_once_are_decoded_or_put_off(logged: tuple[Stack, Path]) -> None:
    files = large_files()[:6]
    with ThreadPoolExecutor(6) as clients:
        answers = [*clients.map(partial(post, logged[0]), files)]
    assert {answer.status_code for answer in answers} <= {200, 413, 422, 429}
    assert 200 in {answer.status_code for answer in answers}
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 429)


def test_after_all_of_them_everything_lives_little_was_taken_and_nothing_was_told(
    logged: tuple[Stack, Path], memory: Memory
) -> None:
    """Runs last: what it looks at is what the tests above have left."""
    stack, log = logged
    print(f"peak MiB of the API: {sum(memory.most.values())}, by process {sorted(memory.most.values())}")
    assert 100 < sum(memory.most.values()) < MOST_MIB
    assert all(process.poll() is None for process in stack.processes.values())
    assert post(stack, HostileFile("a plain photo", PLAIN, ACCEPTED)).json()["status"] == "succeeded"
    told = re.search(r"Traceback|File \"|passwd|X-Injected|egpj|onerror|CRITICAL|ERROR|Booting", log.read_text())
    assert not told, log.read_text()[told.start() - 500 :][:2000]
