"""Processes of a service start again after growing pauses, each end is reported, and others find the service."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.local.supervisor import Backoff, Supervisor
from shared.errors import CannotStart
from shared.redis_address import publish_redis_url, running_redis_url, withdraw_redis_url
from shared.settings import Settings
from tests.conftest import Clock


def test_pauses_double_up_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(lived_s=0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_part_that_lived_a_minute_begins_with_a_short_pause_again() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(lived_s) for lived_s in (0, 0, 59, 60, 0)] == [1, 2, 4, 1, 2]


class Tended:
    """A supervisor whose clock moves when it is advanced, and the messages it gave."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.supervisor = Supervisor(clock)
        self.messages: list[str] = []

    def until(self, n_messages: int) -> None:
        """Restart what ended until so many messages came; real processes end in real time."""
        deadline = time.monotonic() + 20
        while len(self.messages) < n_messages:
            assert time.monotonic() < deadline, self.messages
            self.supervisor.restart_ended(self.messages.append)
            time.sleep(0.01)

    def start(self, name: str, program: str, config: str | None = None) -> None:
        self.supervisor.start(name, [sys.executable, "-c", program], {}, config=config)


@pytest.fixture
def tended(clock: Clock) -> Iterator[Tended]:
    tended = Tended(clock)
    yield tended
    tended.supervisor.stop()


def test_a_part_that_keeps_ending_is_started_again_later_each_time_and_the_others_live_on(
    tended: Tended, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    tended.start("steady", f"open({str(starts)!r}, 'a').write('steady '); import time; time.sleep(600)")
    tended.start("weak", f"open({str(starts)!r}, 'a').write('weak '); raise SystemExit(3)")
    for n_messages, pause_s in enumerate((1, 2, 4), start=1):
        tended.until(n_messages)
        assert tended.messages[-1] == f"weak ended with code 3; it is started again in {pause_s} s"
        tended.clock.now += pause_s - 0.1
        tended.supervisor.restart_ended(tended.messages.append)  # too early
        assert starts.read_text().count("weak") == n_messages
        tended.clock.now += 0.1
    tended.until(4)
    assert starts.read_text().split().count("steady") == 1


FORKED = """
import os, pathlib, signal, time
child = pathlib.Path({child!r})
if os.fork() == 0:
    child.with_suffix(".new").write_text(str(os.getpid()))
    child.with_suffix(".new").rename(child)
    time.sleep(600)
while not child.exists():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_signal_that_ended_a_part_is_named_and_its_children_end_with_it(tended: Tended, tmp_path: Path) -> None:
    child = tmp_path / "child"
    tended.start("forked", FORKED.format(child=str(child)))
    tended.until(1)
    assert tended.messages == ["forked ended with signal SIGKILL; it is started again in 1 s"]
    deadline = time.monotonic() + 10
    while _lives(int(child.read_text())):
        assert time.monotonic() < deadline


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()  # nobody may be there to reap it
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_part_gets_its_configuration_at_every_start(tended: Tended, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = f"import sys; open({str(seen)!r}, 'a').write(sys.stdin.read())"
    tended.start("configured", program, config="secret\n")
    tended.until(1)
    tended.clock.now += 1
    tended.until(2)
    assert seen.read_text() == "secret\nsecret\n"


def test_a_part_that_ends_before_it_reads_its_configuration_is_one_that_ended(tended: Tended) -> None:
    tended.start("deaf", "import os; os.close(0); raise SystemExit(1)", config="x" * 1_000_000)
    tended.until(1)
    assert tended.messages == ["deaf ended with code 1; it is started again in 1 s"]


def test_a_program_that_cannot_be_started_again_is_tried_again(tended: Tended, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 4\n")
    program.chmod(0o700)
    tended.supervisor.start("moved", [str(program)], {})
    tended.until(1)
    program.unlink()
    tended.clock.now += 1
    tended.until(2)
    assert tended.messages[1] == "moved could not be started (No such file or directory); it is started again in 2 s"


def _check_for(supervisor: Supervisor, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        supervisor.raise_if_ended()


def test_before_all_are_ready_an_ended_part_is_an_error(tended: Tended) -> None:
    tended.start("weak", "raise SystemExit(3)")
    with pytest.raises(CannotStart, match="weak ended with code 3; everything else is being stopped"):
        _check_for(tended.supervisor, 20)


def test_a_stop_during_a_pause_ends_the_others(tended: Tended) -> None:
    tended.start("steady", "import time; time.sleep(600)")
    tended.start("weak", "raise SystemExit(3)")
    tended.until(1)
    tended.supervisor.stop()
    tended.clock.now += 60
    tended.supervisor.stop()  # a second time there is nothing to do
    assert len(tended.messages) == 1


# Where the running service's Redis is


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_the_url_is_read_where_the_service_left_it_and_is_for_this_user_only(settings: Settings) -> None:
    publish_redis_url(settings.home, "redis://:secret@127.0.0.1:1/0")
    publish_redis_url(settings.home, "redis://:other@127.0.0.1:2/0")
    assert running_redis_url(settings) == "redis://:other@127.0.0.1:2/0"
    assert [(path.name, path.stat().st_mode & 0o777) for path in settings.home.iterdir()] == [("redis.url", 0o600)]


def test_a_redis_that_was_named_wins(settings: Settings) -> None:
    publish_redis_url(settings.home, "redis://127.0.0.1:1/0")
    named = settings.model_copy(update={"redis_url": "redis://elsewhere:6379/0"})
    assert running_redis_url(named) == "redis://elsewhere:6379/0"


def test_without_a_running_service_the_way_out_is_told(settings: Settings) -> None:
    publish_redis_url(settings.home, "redis://127.0.0.1:1/0")
    withdraw_redis_url(settings.home)
    withdraw_redis_url(settings.home)
    with pytest.raises(CannotStart, match="start the service first with `make run`, or set LOOKALIKE_REDIS_URL"):
        running_redis_url(settings)
