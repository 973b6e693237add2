"""The client against real processes: every form of photo and call, a queue that is full, connections that break."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from lookalike import AsyncClient, Client, Progress, SearchResult, errors
from lookalike.photos import Photo
from tests.conftest import encode, noise_image
from tests.e2e.conftest import Stack, eventually, lookalike, verb
from tests.support.severing import Severing

CATEGORY = "Home & Garden"


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def found(result: SearchResult | None) -> list[str]:
    return [neighbour.image_id for neighbour in result.neighbours] if result else []


def test_a_photo_in_any_form_finds_itself(client: Client, photos: list[Path]) -> None:
    photo = photos[0]
    with photo.open("rb") as file, Image.open(photo) as picture:
        for query in (photo, str(photo), photo.read_bytes(), file, picture):
            result = client.search(query, k=2)
            assert found(result)[0] == photo.stem
            assert len(found(result)) == 2
    assert found(client.search(image_id=photo.stem, k=3, distinct="listing"))[0] == photo.stem


def test_an_embedding_has_length_one_and_scores(client: Client, photos: list[Path]) -> None:
    result = client.embed(photos[0])
    assert len(result.embedding) == result.dimension
    assert sum(x * x for x in result.embedding) == pytest.approx(1, abs=1e-4)
    assert len(result.scores) == 13
    assert client.embed(image_id=photos[0].stem).embedding == pytest.approx(result.embedding, abs=1e-3)


def test_several_photos_or_a_listing_are_one_query(client: Client, photos: list[Path]) -> None:
    own = client.search(photos[0], k=1).neighbours[0].listing_id
    together = client.embed(photos[:3])
    assert sum(x * x for x in together.embedding) == pytest.approx(1, abs=1e-4)
    result = client.search(photos[:3], k=100, distinct="listing", listing_score="mean")
    by_listing = {one.listing_id: one for one in result.neighbours}
    score = sum(a * b for a, b in zip(together.embedding, client.embed(listing_id=own).embedding, strict=True))
    assert by_listing[own].listing_photos is not None
    assert by_listing[own].score <= score + 1e-3  # of the mean of unit vectors, before it is scaled to one
    assert result.category.name == together.category.name
    assert own not in {one.listing_id for one in client.search(listing_id=own, k=100).neighbours}
    with pytest.raises(errors.ImageNotFound, match="listing"):
        client.search(listing_id="nowhere")
    assert result.plot() is not None


def test_a_job_is_submitted_found_again_and_waited_for_with_progress(client: Client, photos: list[Path]) -> None:
    told: list[Progress] = []
    job = client.submit(photos[1], k=1)
    assert found(job.wait(30, progress=told.append)) == [photos[1].stem]
    assert job.done
    again = client.job(job.id)
    assert (again.status, again.wait()) == ("succeeded", job.wait())
    assert job.id in {state.id for state in client.jobs(status="succeeded", kind="search", limit=10)}
    with pytest.raises(errors.JobFinished):
        job.cancel()
    with pytest.raises(errors.JobNotRetryable):
        job.retry()


def test_many_photos_go_in_as_many_requests_as_needed_and_a_bad_one_fails_alone(
    client: Client, photos: list[Path]
) -> None:
    told: list[Progress] = []
    given: list[Photo] = [*photos[:50], b"garbage", "nowhere.jpg", *photos[50:]]
    items = client.batch(given, k=1, progress=told.append)
    assert [item.photo for item in items] == given
    bad = {str(item.photo): item.error.code for item in items if item.error}
    assert bad == {"b'garbage'": "unsupported_format", "nowhere.jpg": "photo_unreadable"}
    assert all(found(item.result) == [item.photo.stem] for item in items if isinstance(item.photo, Path))
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert (told[-1].done, told[-1].total) == (106, 106)


def test_a_batch_that_means_nothing_is_refused_as_a_whole(client: Client, photos: list[Path]) -> None:
    with pytest.raises(errors.InputError, match="k:"):
        client.batch(photos[:3], k=1000)
    assert client.batch([]) == []


def test_embeddings_of_many_photos_are_those_of_each(client: Client, photos: list[Path]) -> None:
    [item] = client.batch_embed(photos[:1])
    assert item.result
    assert item.result.embedding == pytest.approx(client.embed(photos[0]).embedding, abs=1e-3)


def test_a_photo_is_put_looked_at_and_deleted(client: Client, photos: list[Path]) -> None:
    photo = encode(noise_image(4711))
    assert client.put_image("a b?#%", photo, listing_id="l", category=CATEGORY).change_id
    assert client.thumbnail("a b?#%", size=64).startswith(b"\xff\xd8")
    eventually(lambda: found(client.search(photo, k=1)) == ["a b?#%"], 20, "it is found")
    client.delete_image("a b?#%")
    with pytest.raises(errors.ImageNotFound):
        client.thumbnail("a b?#%")


def test_the_index_is_told_of_and_not_rolled_back_beyond_its_beginning(client: Client, photos: list[Path]) -> None:
    assert client.ready().ready
    assert {worker.state for worker in client.workers().workers} == {"ready"}
    info = client.index()
    [live] = [version for version in client.versions() if version.live]
    assert (info.version, info.count) == (live.version, live.count)
    assert client.report(live.version).version == live
    assert client.reindex(dry_run=True).counts.seen == info.count
    with pytest.raises(errors.PromotionRefused):
        client.rollback()
    with pytest.raises(errors.VersionNotFound):
        client.promote("20200101T000000000000Z-00000000")


def test_a_result_is_drawn_beside_its_query(client: Client, photos: list[Path], tmp_path: Path) -> None:
    result = client.search(photos[0], k=4)
    grid = result.plot(tmp_path / "grid.png")
    assert len(grid.axes) == 5
    assert result.category.name in grid.axes[0].get_title()
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > picture.height
    assert grid._repr_png_().startswith(b"\x89PNG")
    assert len(client.plot(client.search(image_id=photos[0].stem, k=1)).axes) == 2


@pytest.mark.parametrize(
    ("photo", "error"),
    [
        (b"", errors.PhotoUndecodable),
        (b"text", errors.UnsupportedFormat),
        (encode(noise_image(1))[:400], errors.PhotoUndecodable),
        (encode(Image.new("1", (21_000, 1)), "PNG"), errors.PhotoTooLarge),
        (bytes(11 << 20), errors.UploadTooLarge),
    ],
    ids=["empty", "text", "cut short", "too wide", "too long"],
)
def test_a_photo_that_cannot_be_taken_is_refused_in_words(
    client: Client, photo: bytes, error: type[errors.LookalikeError]
) -> None:
    with pytest.raises(error) as raised:
        client.search(photo)
    assert raised.value.status in (413, 415, 422)
    assert raised.value.request_id
    assert " " in raised.value.detail


def test_a_photo_of_the_index_that_is_not_there_fails_the_job(client: Client) -> None:
    with pytest.raises(errors.ImageNotFound) as raised:
        client.search(image_id="nobody")
    assert len(raised.value.job_id) == 32


def test_an_async_client_has_many_calls_under_way_at_once(stack: Stack, photos: list[Path]) -> None:
    async def main() -> None:
        async with AsyncClient(stack.url) as client:
            results = await asyncio.gather(*(client.search(photo, k=1) for photo in photos[:40]))
            assert [found(result) for result in results] == [[photo.stem] for photo in photos[:40]]
            job = await client.submit_embed(photos[0])
            assert (await job.wait(30)).dimension == len((await client.embed(photos[0])).embedding)
            assert len((await client.plot(results[0])).axes) == 2
            with pytest.raises(ValueError, match=r"await client\.plot"):
                results[0].plot()
            with pytest.raises(errors.UnsupportedFormat):
                await client.search(b"text")

    asyncio.run(main())


def test_fifty_threads_may_share_a_client(client: Client, photos: list[Path]) -> None:
    results: dict[int, SearchResult] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: client.search(photos[n], k=1)})) for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found(results[n]) for n in range(50)] == [[photo.stem] for photo in photos[:50]]


def n_jobs(client: Client) -> int:
    return len(client.jobs(limit=10_000))


def test_answers_that_are_lost_midway_cost_no_second_job(client: Client, stack: Stack, photos: list[Path]) -> None:
    before = n_jobs(client)
    url = "http://127.0.0.1:{}".format
    with closing(Severing(stack.port, 3)) as severing, Client(url(severing.port)) as unlucky:
        job = unlucky.submit(photos[5], k=1)
        assert severing.n_lost == 0
        assert found(job.wait(30)) == [photos[5].stem]
        severing.n_lost = 2
        items = unlucky.batch(photos[:10], k=1)
        assert [found(item.result) for item in items] == [[photo.stem] for photo in photos[:10]]
    assert n_jobs(client) == before + 11


def test_a_service_that_is_not_there_is_told_in_words() -> None:
    with Client("http://127.0.0.1:1", timeout_s=0.5) as nobody:
        began = time.monotonic()
        with pytest.raises(errors.NoAnswer, match="is it running"):
            nobody.search(b"photo")
        assert time.monotonic() - began < 30
        with pytest.raises(errors.NoAnswer):
            nobody.batch([b"photo"])


def test_without_a_worker_one_may_give_up_cancel_and_come_back(
    own_stack: Stack, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_stack.start("api", max_queued=3, probe_every_s=0, max_batch_photos=4)
    with Client(own_stack.url) as client:
        assert "no worker" in client.ready().problems[0]  # and it waited for the API
        job = client.submit(photos[0], k=1)
        with pytest.raises(errors.TimedOut, match="queued") as raised:
            job.wait(0.3)
        assert raised.value.job_id == job.id
        with pytest.raises(errors.TimedOut):
            client.search(photos[0], timeout_s=1)  # which leaves no job behind
        monkeypatch.setattr("pipeline.cli.remote._TIMEOUT_S", 3.0)
        late = verb("search", str(photos[0]), "--url", own_stack.url, "--json", home=tmp_path)
        assert "has not answered yet: trying for 2 s more" in late.stderr
        error = json.loads(late.stdout)["error"]
        assert error["code"] in ("timed_out", "deadline_exceeded")
        assert "no worker has reported within 15 s; start a worker" in error["detail"]

        given_up: list[BaseException] = []

        def wait() -> None:
            try:
                job.wait()
            except errors.LookalikeError as exc:
                given_up.append(exc)

        waiting = threading.Thread(target=wait)
        waiting.start()
        client.job(job.id).cancel().cancel()  # a second time is no error
        waiting.join(30)
        assert [type(error) for error in given_up] == [errors.JobCanceled]

        taken = [client.submit(photos[n], k=1) for n in range(3)]
        with Client(own_stack.url, timeout_s=0.2) as hasty, pytest.raises(errors.QueueFull) as full:
            hasty.submit(photos[3])
        assert full.value.retry_after_s

        awaited: list[SearchResult] = []
        patient = threading.Thread(target=lambda: awaited.append(client.search(photos[3], k=1)))
        patient.start()
        own_stack.start("worker")
        patient.join(60)
        assert [found(result) for result in awaited] == [[photos[3].stem]]
        assert [found(job.wait(30)) for job in taken] == [[photos[n].stem] for n in range(3)]
        # Twenty photos where the queue takes three, and a request four.
        items = client.batch(photos[:20], k=1, timeout_s=120)
        assert [found(item.result) for item in items] == [[photo.stem] for photo in photos[:20]]


def test_the_command_line_searches_at_a_service_elsewhere(stack: Stack, photos: list[Path], tmp_path: Path) -> None:
    done = lookalike("search", str(photos[0]), "-k", "2", "--url", stack.url, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["neighbours"][0]["image_id"] == photos[0].stem
    lost = lookalike("search", str(photos[0]), "--url", "nowhere", home=tmp_path)
    assert (lost.returncode, lost.stdout) == (1, "")
    assert lost.stderr.startswith("error: url: 'nowhere' is no address of a service")
