"""The clock of an installation: Redis's time, carried on by the monotonic clock of this host"""

from typing import cast

import pytest
import redis

from shared.redis_clock import RedisClock


class FakeRedis:
    """A Redis whose time is known, and which takes its time to answer."""

    def __init__(self) -> None:
        self.now, self.takes_s, self.asked = 1_000_000.0, 0.0, 0
        self.here_s = 50.0

    def time(self) -> tuple[int, int]:
        """Answer in the middle of the time that the call takes."""
        self.asked += 1
        self.pass_time(self.takes_s / 2)
        answer = (int(self.now), round(self.now % 1 * 1e6))
        self.pass_time(self.takes_s / 2)
        return answer

    def pass_time(self, s: float) -> None:
        self.now += s
        self.here_s += s


@pytest.fixture
def server() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def clock(server: FakeRedis) -> RedisClock:
    return RedisClock(cast(redis.Redis, server), monotonic=lambda: server.here_s)


def test_it_says_what_redis_says_and_asks_every_five_seconds(server: FakeRedis, clock: RedisClock) -> None:
    for _ in range(48):
        assert clock() == pytest.approx(server.now, abs=1e-5)
        server.pass_time(0.25)
    assert server.asked == 3 + 2


def test_half_the_time_that_an_answer_takes_has_passed_since(server: FakeRedis, clock: RedisClock) -> None:
    server.takes_s = 0.2
    assert clock() == pytest.approx(server.now, abs=1e-5)


def test_an_answer_that_came_late_is_not_believed_where_a_better_one_is_known(
    server: FakeRedis, clock: RedisClock
) -> None:
    clock()
    server.pass_time(6)
    server.takes_s = 3
    server.now += 1  # a difference that such an answer cannot tell from its own way
    assert clock() == pytest.approx(server.now - 1, abs=1e-5)
    server.takes_s = 0
    server.pass_time(6)
    assert clock() == pytest.approx(server.now, abs=1e-5)


def test_an_old_answer_gives_way_to_one_that_is_nearly_as_good(server: FakeRedis, clock: RedisClock) -> None:
    server.takes_s = 0.002
    clock()
    server.pass_time(60)
    server.takes_s = 0.1
    server.now += 0.05  # the monotonic clock of this host is slow
    assert clock() == pytest.approx(server.now, abs=1e-5)


def test_it_follows_a_primary_of_another_time(server: FakeRedis, clock: RedisClock) -> None:
    clock()
    server.now += 30
    server.pass_time(5)
    assert clock() == pytest.approx(server.now, abs=1e-5)
