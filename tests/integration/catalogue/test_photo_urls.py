"""Photos by URL: fetched once and kept, fetched again only where they changed; failures are rows with a reason."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from shared.artifacts.bucket import Bucket
from shared.catalogue.fetching import PARALLEL, PhotoCache, PhotoFetcher, fetch_with, seldom
from shared.catalogue.photo_files import FetchedPhoto
from shared.catalogue.tables import Catalogue, CatalogueReader, read_catalogue, scan_catalogue
from shared.errors import ArtifactUnwritable
from shared.outbound.downloads import Downloader
from shared.outbound.hosts import AllowedHosts, parse_hosts
from shared.settings import Settings
from tests.conftest import encode, noise_image, write_catalogue
from tests.support.photo_host import PhotoHost, answer, photo_host

PHOTO, OTHER = encode(noise_image(1, (40, 30))), encode(noise_image(2, (40, 30)))
PRODUCTS = "id,category\nl1,Appliances\n"


@pytest.fixture
def host() -> Iterator[PhotoHost]:
    with photo_host() as host:
        yield host


def fetcher(storage: Path | Bucket, hosts: str, *, allow_private: bool = True, timeout_s: float = 5) -> PhotoFetcher:
    allowed = AllowedHosts(parse_hosts(hosts), allow_private, "photo's URL")
    return PhotoFetcher(allowed, PhotoCache(storage), Downloader(allowed, max_bytes=1 << 20, timeout_s=timeout_s))


def dump_of(directory: Path, rows: dict[str, str], column: str = "url") -> Path:
    """A catalogue with a photo on disk and others by URL."""
    images = f"id,product_id,{column}\nsound,l1,\n" + "".join(f"{one},l1,{url}\n" for one, url in rows.items())
    return write_catalogue(directory / "dump", PRODUCTS, images, {"sound.jpg": PHOTO})


def contents(catalogue: Catalogue) -> dict[str, bytes]:
    return {photo.image_id: photo.path.read_bytes() for photo in catalogue.photos}


def told(catalogue: Catalogue) -> list[tuple[str, str, str]]:
    return [(row.row_id, row.reason, row.detail) for row in catalogue.rejected]


@pytest.mark.parametrize("column", ["url", "URL", "image_url"])
def test_a_photo_without_a_file_is_fetched(tmp_path: Path, host: PhotoHost, column: str) -> None:
    host.photos["/p1.jpg"] = OTHER
    dump = dump_of(tmp_path, {"p1": host.url("/p1.jpg"), "p2": host.url("/p1.jpg")}, column)
    catalogue = read_catalogue(dump, fetch=fetcher(tmp_path / "home", host.name).fetch)
    assert contents(catalogue) == {"sound": PHOTO, "p1": OTHER, "p2": OTHER}
    assert (catalogue.rejected, catalogue.odd) == ((), ())
    assert [path for path, _ in host.asked] == ["/p1.jpg"]
    on_disk = write_catalogue(tmp_path / "disk", PRODUCTS, "id,product_id\nsound,l1\np1,l1\np2,l1\n", {
        "sound.jpg": PHOTO, "p1.jpg": OTHER, "p2.jpg": OTHER,
    })  # fmt: skip
    assert catalogue.digest == read_catalogue(on_disk).digest


def test_a_photo_with_a_file_or_without_a_listing_is_not_asked_for(tmp_path: Path, host: PhotoHost) -> None:
    dump = dump_of(tmp_path, {})
    (dump / "Images.csv").write_text(
        f"id,product_id,url,path\nsound,l1,{host.url('/a')},\nnone,l9,{host.url('/b')},\nout,l1,{host.url('/c')},../x.jpg\n"
    )
    catalogue = read_catalogue(dump, fetch=fetcher(tmp_path / "home", host.name).fetch)
    assert contents(catalogue) == {"sound": PHOTO}
    assert [reason for _, reason, _ in told(catalogue)] == [
        "photo without listing",
        "photo path leads out of the catalogue",
    ]
    assert host.asked == []


def test_what_was_fetched_is_asked_for_once_a_reading_and_replaced_where_it_changed(
    tmp_path: Path, host: PhotoHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.photos |= {"/p1.jpg": PHOTO, "/p2.jpg": PHOTO}
    dump = dump_of(tmp_path, {"p1": host.url("/p1.jpg"), "p2": host.url("/p2.jpg")})
    fetch = fetcher(tmp_path / "home", host.name).fetch
    reader = CatalogueReader(tmp_path / "digests")
    before = reader.read(dump, fetch=fetch)
    assert reader.digest(scan_catalogue(dump)) is None  # nobody knows without asking
    host.photos["/p2.jpg"] = OTHER
    host.asked.clear()
    again = CatalogueReader(tmp_path / "digests").read(dump, fetch=fetcher(tmp_path / "home", host.name).fetch)
    assert contents(again) == {"sound": PHOTO, "p1": PHOTO, "p2": OTHER}
    assert again.digest != before.digest
    assert sorted((path, "if-none-match" in headers) for path, headers in host.asked) == [
        ("/p1.jpg", True),
        ("/p2.jpg", True),
    ]
    kept = [path for path in (tmp_path / "home" / "fetched-photos").rglob("*") if path.is_file()]
    assert len(kept) == 4  # two photos and two notes: what is not needed any more is gone


def test_a_host_that_is_away_leaves_what_was_fetched_and_is_told(tmp_path: Path, host: PhotoHost) -> None:
    host.photos["/p1.jpg"] = OTHER
    dump = dump_of(tmp_path, {"p1": host.url("/p1.jpg")})
    fetch = fetcher(tmp_path / "home", host.name).fetch
    read_catalogue(dump, fetch=fetch)
    host.photos["/p1.jpg"] = answer(503)
    catalogue = read_catalogue(dump, fetch=fetch)
    assert contents(catalogue)["p1"] == OTHER
    [odd] = catalogue.odd
    assert (odd.row_id, odd.reason, odd.table, odd.row) == ("p1", "photo is as fetched earlier", "Images.csv", 3)
    assert odd.detail == f"{host.url('/p1.jpg')}: the host answers 503"
    host.photos["/p1.jpg"] = answer(410)  # gone for good
    assert told(read_catalogue(dump, fetch=fetch)) == [
        ("p1", "photo cannot be fetched", f"{host.url('/p1.jpg')}: the host answers 410")
    ]


@pytest.mark.parametrize(
    ("hosts", "url", "reason", "detail"),
    [
        ("", "https://a.example/p.jpg?token=1", "photo url may not be fetched",
         "https://a.example/p.jpg: LOOKALIKE_PHOTO_HOSTS lists no host; a.example would have to be in it"),
        ("b.example", "https://a.example/p.jpg", "photo url may not be fetched",
         "https://a.example/p.jpg: a.example is not among the hosts that may be called; ask the operator to allow it "
         "(LOOKALIKE_PHOTO_HOSTS)"),
        ("a.example", "http://a.example/p.jpg", "photo url may not be fetched",
         "http://a.example/p.jpg: the photo's URL must begin with https:// (LOOKALIKE_PHOTO_HOSTS)"),
        ("127.0.0.1", "https://127.0.0.1/p.jpg", "photo url may not be fetched",
         "https://127.0.0.1/p.jpg: 127.0.0.1 is not an address on the internet; use one that is, or a name "
         "(LOOKALIKE_PHOTO_HOSTS)"),
        ("localhost", "https://localhost/p.jpg", "photo cannot be fetched",
         "https://localhost/p.jpg: its name resolves to no address on the internet"),
        ("a.example", "p.jpg", "photo url may not be fetched", "names no host"),
        ("a.example", "http://[", "photo url may not be fetched", "cannot be read"),
    ],
)  # fmt: skip
def test_urls_that_may_not_be_fetched_are_rows_with_host_and_setting(
    tmp_path: Path, hosts: str, url: str, reason: str, detail: str
) -> None:
    fetch = fetcher(tmp_path / "home", hosts, allow_private=False).fetch
    catalogue = read_catalogue(dump_of(tmp_path, {"p1": url}), fetch=fetch)
    [row] = catalogue.rejected
    assert (row.table, row.row, row.row_id, row.reason) == ("Images.csv", 3, "p1", reason)
    assert row.detail.endswith(detail) or detail in row.detail
    assert "token" not in row.detail


def test_without_a_fetcher_a_url_is_told(tmp_path: Path) -> None:
    [(_, reason, detail)] = told(read_catalogue(dump_of(tmp_path, {"p1": "https://a.example/p.jpg"})))
    assert reason == "photo without file"
    assert detail.endswith("its url is not fetched by this command")


def test_what_was_fetched_stays_when_the_process_ends_early(tmp_path: Path, host: PhotoHost) -> None:
    host.photos |= {f"/{n}.jpg": PHOTO for n in range(60)}
    dump = dump_of(tmp_path, {f"p{n}": host.url(f"/{n}.jpg") for n in range(60)})

    def stop(done: int, total: int) -> None:
        assert total == 60
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_catalogue(dump, fetch=partial(fetcher(tmp_path / "home", host.name).fetch, report=stop))
    n_asked = len(host.asked)
    assert 20 <= n_asked < 60
    host.asked.clear()
    assert len(read_catalogue(dump, fetch=fetcher(tmp_path / "home", host.name).fetch).photos) == 61
    n_known = sum("if-none-match" in headers for _, headers in host.asked)
    assert (len(host.asked), n_known) == (60, n_asked)


def test_photos_are_asked_for_several_at_a_time_but_not_more(tmp_path: Path, host: PhotoHost) -> None:
    all_asked = threading.Barrier(PARALLEL)

    def wait_for_the_others(handler: object) -> None:
        all_asked.wait(10)
        answer(200, PHOTO)(handler)  # type: ignore[arg-type]

    urls = [host.url(f"/{n}.jpg") for n in range(2 * PARALLEL)]
    host.photos |= {f"/{n}.jpg": wait_for_the_others for n in range(2 * PARALLEL)}
    found = fetcher(tmp_path / "home", host.name).fetch(urls)
    assert [isinstance(photo, FetchedPhoto) for photo in found.values()] == [True] * (2 * PARALLEL)


def test_a_host_that_never_answers_is_left_alone_for_the_rest(tmp_path: Path) -> None:
    urls = [f"http://localhost:1/{n}.jpg" for n in range(200)]
    catalogue = read_catalogue(
        dump_of(tmp_path, {f"p{n}": url for n, url in enumerate(urls)}),
        fetch=fetcher(tmp_path / "home", "localhost:1").fetch,
    )
    assert catalogue.unusable == {"photo cannot be fetched": 200}
    assert catalogue.rejected[-1].detail.endswith("other photos, and was not asked again")


@pytest.mark.parametrize("damage", ["note", "photo", "format"])
def test_a_cache_that_is_damaged_is_fetched_anew(tmp_path: Path, host: PhotoHost, damage: str) -> None:
    host.photos["/p1.jpg"] = OTHER
    dump, fetch = dump_of(tmp_path, {"p1": host.url("/p1.jpg")}), fetcher(tmp_path / "home", host.name).fetch
    read_catalogue(dump, fetch=fetch)
    files = {path.suffix: path for path in (tmp_path / "home").rglob("*") if path.is_file()}
    if damage == "photo":
        files[""].unlink()
    else:
        files[".json"].write_text('{"format": 0}' if damage == "format" else "{")
    assert contents(read_catalogue(dump, fetch=fetch))["p1"] == OTHER


def test_what_no_table_has_any_more_is_removed_after_a_month(tmp_path: Path, host: PhotoHost) -> None:
    urls = [host.url(f"/{n}.jpg") for n in range(3)]
    host.photos |= {f"/{n}.jpg": PHOTO for n in range(3)}
    at = fetcher(tmp_path / "home", host.name)
    at.fetch(urls)
    for path in (tmp_path / "home").rglob("*"):
        os.utime(path, (time.time() - 31 * 86_400,) * 2)
    host.photos["/0.jpg"] = OTHER
    at.fetch(urls[:2])
    cache = PhotoCache(tmp_path / "home")
    assert [cache.read(url) is not None for url in urls] == [True, True, False]
    assert len([path for path in (tmp_path / "home").rglob("*") if path.is_file()]) == 4


def test_a_disk_that_is_full_leaves_rows_out(tmp_path: Path, host: PhotoHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(cache: PhotoCache, url: str, *_: object) -> None:
        raise ArtifactUnwritable("no room")

    monkeypatch.setattr(PhotoCache, "keep", full)
    host.photos["/p1.jpg"] = OTHER
    fetch = fetcher(tmp_path / "home", host.name).fetch
    [(_, reason, detail)] = told(read_catalogue(dump_of(tmp_path, {"p1": host.url("/p1.jpg")}), fetch=fetch))
    assert (reason, detail) == ("photo cannot be fetched", f"{host.url('/p1.jpg')}: it cannot be kept: no room")


def test_images_need_not_exist_where_all_photos_have_urls(tmp_path: Path, host: PhotoHost) -> None:
    host.photos["/p1.jpg"] = OTHER
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "Products.csv").write_text(PRODUCTS)
    (tmp_path / "dump" / "Images.jsonl").write_text(
        json.dumps({"id": "p1", "product_id": "l1", "url": host.url("/p1.jpg")})
    )
    catalogue = read_catalogue(tmp_path / "dump", fetch=fetcher(tmp_path / "home", host.name).fetch)
    assert contents(catalogue) == {"p1": OTHER}


def test_the_cache_may_lie_in_an_object_store(tmp_path: Path, host: PhotoHost, bucket_url: str) -> None:
    host.photos["/p1.jpg"] = OTHER
    dump = dump_of(tmp_path, {"p1": host.url("/p1.jpg")})
    storage = Bucket(f"{bucket_url}/store", tmp_path / "machine")
    catalogue = read_catalogue(dump, fetch=fetcher(storage, host.name).fetch)
    assert contents(catalogue) == {"sound": PHOTO, "p1": OTHER}
    assert str(catalogue.photos[1].path).startswith(f"{storage.url}/fetched-photos/")
    read_catalogue(dump, fetch=fetcher(storage, host.name).fetch)
    assert "if-none-match" in host.asked[-1][1]


def test_settings_say_which_hosts_how_large_and_where(tmp_path: Path, host: PhotoHost) -> None:
    host.photos |= {"/p1.jpg": OTHER, "/p2.jpg": b"x" * ((1 << 20) + 1)}
    settings = Settings(
        home=tmp_path / "home",
        photo_hosts=f" {host.name.upper()}, a.example ",
        photo_allow_private=True,
        max_upload_mb=1,
    )
    assert settings.photo_hosts == f"{host.name},a.example"
    lines: list[str] = []
    dump = dump_of(tmp_path, {"p1": host.url("/p1.jpg"), "p2": host.url("/p2.jpg")})
    catalogue = read_catalogue(dump, fetch=fetch_with(settings, lines.append))
    assert contents(catalogue) == {"sound": PHOTO, "p1": OTHER}
    assert [detail for _, _, detail in told(catalogue)] == [f"{host.url('/p2.jpg')}: it has more than 1 MiB"]
    assert str(catalogue.photos[1].path).startswith(f"{tmp_path}/home/fetched-photos/")
    assert lines == ["asked for 2 of 2 photos by URL"]


def test_progress_is_told_once_in_a_while_and_at_the_end() -> None:
    now = [0.0]
    told: list[int] = []
    report: Callable[[int, int], object] = seldom(lambda done, total: told.append(done), 5, lambda: now[0])
    for done in range(1, 13):
        now[0] = float(done)
        report(done, 12)
    assert told == [5, 10, 12]
