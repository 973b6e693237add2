"""Several photos, or a listing, as one query of the client: what is sent, and what is refused before it is."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lookalike import Client, LookalikeError
from lookalike.errors import InputError, PhotoUnreadable
from tests.conftest import encode, noise_image
from tests.unit.test_client_inputs import PHOTO, Service
from tests.unit.test_client_inputs import client as client  # noqa: PLC0414 - a fixture
from tests.unit.test_client_inputs import service as service  # noqa: PLC0414 - a fixture

OTHER = encode(noise_image(8))


@pytest.mark.parametrize("photos", [[PHOTO, BytesIO(OTHER)], (PHOTO, OTHER)])
def test_photos_of_a_list_are_sent_in_one_request_in_their_order(client: Client, service: Service, photos: Any) -> None:
    client.submit(photos, distinct="listing", listing_score="mean")
    [sent] = service.sent
    assert sent.content.count(b'name="image"; filename="photo"') == 2
    assert 0 < sent.content.index(PHOTO) < sent.content.index(OTHER)
    assert b'name="listing_score"\r\n\r\nmean\r\n' in sent.content


def test_a_listing_is_named_in_json(client: Client, service: Service) -> None:
    client.submit_embed(listing_id=4711)  # type: ignore[arg-type]
    assert json.loads(service.sent[0].content) == {"listing_id": "4711", "encoding": "base64"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda client: client.search([]), "photo: the list is empty"),
        (lambda client: client.search(listing_id=["l"]), "^listing_id: "),
        (lambda client: client.search([PHOTO], listing_id="l"), "name either"),
        (lambda client: client.search(image_id="p", listing_id="l"), "name either"),
        (lambda client: client.search(listing_id="l", box=(0, 0, 1, 1)), "^box: listing_id"),
    ],
)
def test_what_is_no_query_is_refused_here(
    client: Client, service: Service, call: Callable[[Client], object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        call(client)
    assert service.sent == []


def test_the_photo_that_cannot_be_read_is_named(client: Client, service: Service, tmp_path: Path) -> None:
    with pytest.raises(PhotoUnreadable, match=r"^photo 2 of 3: there is no file"):
        client.search([PHOTO, tmp_path / "none.jpg", PHOTO])
    with pytest.raises(LookalikeError, match=r"^photo 1 of 2: a photo is a path"):
        client.search([[PHOTO], PHOTO])  # type: ignore[list-item]
    assert service.sent == []
