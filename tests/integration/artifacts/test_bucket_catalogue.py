"""A catalogue in an object store is the same as in a directory, and what changed of it is told without reading it"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from shared.artifacts.bucket import Bucket
from shared.artifacts.buckets import Buckets
from shared.artifacts.files import ObjectFile
from shared.catalogue import scan as scan_module
from shared.catalogue.tables import CatalogueReader, read_catalogue, scan_catalogue
from shared.errors import CatalogueUnusable, StoreUnavailable
from tests.conftest import encode, noise_image, write_catalogue
from tests.support.object_store import ObjectStore, Proxy

PRODUCTS = "id,category\nl1,Appliances / Kettles\nl2,Home & Garden\n"
IMAGES = "id,product_id\np1,l1\nP2 ü~%#,l2\nnone,l1\n"
PHOTOS = {"p1.JPG": encode(noise_image(1)), "p2 ü~%#.jpg": encode(noise_image(2)), "notes.txt": b"none"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_catalogue(tmp_path / "dump", PRODUCTS, IMAGES, PHOTOS)


@pytest.fixture
def bucket(bucket_url: str, object_store: ObjectStore, directory: Path, tmp_path: Path) -> Bucket:
    """The directory as another program has put it there: its keys are what they are, and nothing is read into them."""
    bucket = Bucket(f"{bucket_url}/catalogue", tmp_path / "machine")
    for file in directory.rglob("*"):
        if file.is_file():
            key = quote(f"{bucket.bucket}/{bucket.prefix}/{file.relative_to(directory)}")
            assert requests.put(f"{object_store.url}/{key}", data=file.read_bytes(), timeout=30).ok
    return bucket


@pytest.fixture
def proxy(object_store: ObjectStore) -> Iterator[Proxy]:
    proxy = Proxy(object_store.port)
    yield proxy
    proxy.close()


def test_it_reads_like_the_directory_it_was_copied_from(bucket: Bucket, directory: Path) -> None:
    stored, local = read_catalogue(bucket), read_catalogue(directory)
    assert stored.digest == local.digest
    assert stored.unusable == local.unusable == {"photo without file": 1}
    assert stored.name == "catalogue"
    assert [photo.path.read_bytes() for photo in stored.photos] == [PHOTOS["p1.JPG"], PHOTOS["p2 ü~%#.jpg"]]


def test_photos_lie_in_subfolders_too(bucket: Bucket) -> None:
    bucket.write("images/2024/may/none.png", PHOTOS["p1.JPG"])
    bucket.write("images/.trash/p1.jpg", b"not this")
    found = {photo.image_id: str(photo.path) for photo in read_catalogue(bucket).photos}
    assert found["none"] == f"{bucket.url}/images/2024/may/none.png"
    assert len(found) == 3
    bucket.write("images/2025/none.jpg", PHOTOS["p1.JPG"])
    [told] = read_catalogue(bucket).rejected
    assert "in the folders of images/; there is 2024/may/none.png, 2025/none.jpg; name one" in told.detail


def test_its_tables_may_be_called_and_lie_otherwise(bucket: Bucket) -> None:
    table = "Nr;Kategorie;Bild\n1;Appliances;p1.JPG\n2;Home & Garden;p2 ü~%#.jpg\n"
    bucket.write("db/feed.csv", table.encode())
    bucket.write("catalogue.toml", b"listings = {table = 'db/gone.csv'}")
    with pytest.raises(CatalogueUnusable, match=r"listings.table: db/gone.csv is not there"):
        read_catalogue(bucket)
    configuration = "listings = {table = 'db/feed.csv', id = 'Nr', category = 'Kategorie'}\nphotos.columns = ['Bild']"
    bucket.write("catalogue.toml", configuration.encode())
    catalogue = read_catalogue(bucket)
    assert {photo.image_id: photo.listing_id for photo in catalogue.photos} == {"1-p1": "1", "2-p2 ü~%#": "2"}
    assert catalogue.rejected == ()
    reader = CatalogueReader()
    reader.read(bucket)
    bucket.write("db/feed.csv", table.replace("2;", "3;").encode())
    assert reader.digest(scan_catalogue(bucket)) is None


def test_without_a_table_it_is_proposed_which_may_be_meant(bucket: Bucket) -> None:
    bucket.write("feed.tsv", b"id\tcategory\timage\n")
    bucket.remove(["Products.csv"])
    with pytest.raises(CatalogueUnusable, match=r'table = "feed.tsv"\nid = "id"'):
        read_catalogue(bucket)


def test_photos_are_found_by_path_wherever_they_are(bucket: Bucket) -> None:
    bucket.write("photos/of/1.jpg", PHOTOS["p1.JPG"])
    bucket.write("Images.csv", b"id,product_id,path\na,l1,photos/of/1.jpg\nb,l2,p1.JPG\nc,l2,../../elsewhere.jpg\n")
    catalogue = read_catalogue(bucket)
    urls = [f"{bucket.url}/photos/of/1.jpg", f"{bucket.url}/images/p1.JPG"]
    assert [str(photo.path) for photo in catalogue.photos] == urls
    assert catalogue.unusable == {"photo path leads out of the catalogue": 1}


def test_tables_may_have_types(bucket: Bucket, directory: Path) -> None:
    before = read_catalogue(bucket).digest
    rows = [dict(zip(("id", "product_id"), line.split(","), strict=True)) for line in IMAGES.splitlines()[1:]]
    bucket.write("images.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    with pytest.raises(CatalogueUnusable, match=r"Images\.csv and images\.jsonl"):
        read_catalogue(bucket)
    bucket.remove(["Images.csv"])
    catalogue = read_catalogue(bucket)
    assert catalogue.digest == before
    assert [(row.table, row.row) for row in catalogue.rejected] == [("Images.jsonl", 3)]


def test_photos_are_asked_for_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_asked = threading.Barrier(16)
    monkeypatch.setattr(ObjectFile, "read_bytes", lambda file: str(all_asked.wait(30)).encode())
    photos = [(f"s3://nowhere/{number}.jpg", scan_module.Stat(1, 1, "tag")) for number in range(16)]
    assert len(set(scan_module.PhotoDigests().read(photos, Buckets(tmp_path).file))) == 16


def test_a_photo_is_found_by_its_address(bucket: Bucket, tmp_path: Path) -> None:
    photos = read_catalogue(bucket).photos
    assert len(photos) == 2
    for photo in photos:
        found = Buckets(tmp_path).file(str(photo.path))
        assert isinstance(found, ObjectFile)
        assert found.read_bytes() == photo.path.read_bytes()


def test_only_what_has_changed_is_read_again(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_RACY_NS", -2_000_000_000)  # what was just written counts as settled
    whole = CatalogueReader(tmp_path / "digests").read(bucket)
    reader = CatalogueReader(tmp_path / "digests")
    assert reader.digest(scan_catalogue(bucket)) == whole.digest
    bucket.write("images/p1.JPG", encode(noise_image(3)))
    assert reader.digest(scan_catalogue(bucket)) is None
    keys: list[str] = []
    read = Bucket.read

    def noted(self: Bucket, key: str) -> bytes:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(Bucket, "read", noted)
    assert reader.read(bucket).digest != whole.digest
    assert [key for key in keys if "/" in key] == ["images/p1.JPG"]


def test_what_is_missing_is_named(bucket: Bucket) -> None:
    bucket.remove(["Images.csv"])
    with pytest.raises(CatalogueUnusable, match=r"s3://\S+/catalogue has no Images\.csv"):
        read_catalogue(bucket)


def test_a_store_that_is_away_is_no_catalogue_without_photos(
    bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    elsewhere = Bucket(bucket.url, bucket.cache)
    found = scan_catalogue(elsewhere)
    with proxy.away(), pytest.raises(StoreUnavailable):
        CatalogueReader().read(elsewhere, found)
