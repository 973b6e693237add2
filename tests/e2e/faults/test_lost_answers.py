"""Redis's answer to the write of a job is lost: the API knows what became of it, or says that it does not."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from shared.jobs.store import JobStore
from tests.conftest import encode, noise_image
from tests.e2e.conftest import Stack, eventually
from tests.support.severing import Severing

WRITE = b"deadline_at"  # a field of the record, which only the script that writes it is given


@pytest.fixture(scope="module")
def severed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Severing]]:
    """An API whose way to Redis can lose answers. There is no worker: jobs stay queued."""
    stack = Stack(home, tmp_path_factory.mktemp("valkey"))
    direct = stack.redis_url
    with closing(Severing(urlsplit(direct).port or 0, asked=WRITE, shown=0)) as severing:
        stack.redis_url = f"redis://127.0.0.1:{severing.port}/0"
        stack.start("api", probe_every_s=0)
        stack.redis_url = direct
        eventually(lambda: requests.get(stack.url + "/livez", timeout=5).ok, 60, "the API")
        yield stack, severing
        stack.close()


@pytest.fixture
def n_new_jobs(severed: tuple[Stack, Severing]) -> Iterator[Callable[[], int]]:
    """How many jobs were queued since the test began."""
    with severed[0].open_redis() as client:
        store = JobStore(client)
        before = store.depth()
        yield lambda: store.depth() - before


def submit(stack: Stack, **headers: str) -> requests.Response:
    files = {"image": encode(noise_image(5))}
    return requests.post(stack.url + "/v1/jobs/search", files=files, headers=headers, timeout=30)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["without a key", "with one"])
def test_an_answer_lost_once_is_asked_for_again_and_the_job_is_one(
    severed: tuple[Stack, Severing], n_new_jobs: Callable[[], int], headers: dict[str, str]
) -> None:
    stack, severing = severed
    severing.n_lost = 1
    answer = submit(stack, **headers)
    assert severing.n_lost == 0
    assert answer.status_code == 202, answer.text
    assert n_new_jobs() == 1
    assert requests.get(stack.url + answer.headers["Location"], timeout=10).json()["status"] == "queued"


def test_where_it_stays_lost_the_caller_is_told_where_the_job_is(
    severed: tuple[Stack, Severing], n_new_jobs: Callable[[], int]
) -> None:
    stack, severing = severed
    severing.n_lost = 2
    answer = submit(stack, **{"Idempotency-Key": "again"})
    assert (answer.status_code, answer.json()["code"]) == (503, "acceptance_unknown")
    assert "nothing was accepted" not in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(stack.url + answer.json()["job"], timeout=10).json()["status"] == "queued"
    repeated = submit(stack, **{"Idempotency-Key": "again"})
    assert repeated.headers["Location"] == answer.json()["job"]
    assert n_new_jobs() == 1


def test_where_redis_was_not_reached_nothing_was_accepted(
    severed: tuple[Stack, Severing], n_new_jobs: Callable[[], int]
) -> None:
    """Last: it takes the way to Redis away."""
    stack, severing = severed
    severing.close()
    with stack.open_redis() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        eventually(
            lambda: submit(stack).json().get("code") == "queue_unavailable", 10, "the API knows that it is alone"
        )
    assert n_new_jobs() == 0
