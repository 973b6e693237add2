"""`box=` of the client: which forms it takes, what is sent, and what is refused before anything is sent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from lookalike import Client, LookalikeError
from lookalike.boxes import box_text
from lookalike.errors import InputError
from shared.photos.boxes import Box, BoxOption
from tests.unit.test_client_inputs import PHOTO, Service
from tests.unit.test_client_inputs import client as client  # noqa: PLC0414 - a fixture
from tests.unit.test_client_inputs import service as service  # noqa: PLC0414 - a fixture

OPTION: TypeAdapter[Box] = TypeAdapter(BoxOption)
WHOLE = (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (WHOLE, "0,0,1,1"),
        ([0.5, 0, 0.5, 1.0], "0.5,0,0.5,1"),
        ("0.5, 0,.5,1", "0.5,0,0.5,1"),
        (np.array([0.25, 0.1, 0.5, 0.6], dtype=np.float64), "0.25,0.1,0.5,0.6"),
        ((1e-5, 0, 1 / 3, 2 / 3), "0.00001,0,0.333333333,0.666666667"),
        (Box(0.1, 0.2, 0.3, 0.4), "0.1,0.2,0.3,0.4"),
    ],
)
def test_a_box_is_sent_as_text_that_the_service_reads(client: Client, service: Service, given: Any, sent: str) -> None:
    client.submit(PHOTO, box=given)
    client.submit_embed(PHOTO, box=given)
    for call in (client.search, client.embed):
        with pytest.raises(LookalikeError, match="was canceled"):
            call(PHOTO, box=given)
    assert len(service.sent) == 4
    for request in service.sent:
        assert f'name="box"\r\n\r\n{sent}\r\n'.encode() in request.content
    assert OPTION.validate_python(sent)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((0, 0, 1), "four numbers"),
        ("0,0,1", "four numbers"),
        ("left", "four numbers"),
        (5, "four numbers"),
        ((0, 0, True, 1), "four numbers"),
        ((0, 0, None, 1), "four numbers"),
        ((0, 0, 2, 1), "fractions"),
        ((-0.1, 0, 1, 1), "fractions"),
        ((0, 0, float("nan"), 1), "fractions"),
        ((0, 0, 0, 1), "more than 0"),
        ((0, 0, 1, 1e-12), "more than 0"),
        ((0.5, 0, 0.6, 1), "beyond the photo"),
        ((0, 0.5, 1, 0.51), "beyond the photo"),
    ],
)
def test_what_is_no_box_is_named_and_not_sent(client: Client, service: Service, box: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^box: .*{says}"):
        client.search(PHOTO, box=box)
    assert service.sent == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.search(image_id="p", box=WHOLE),
        lambda client: client.embed(image_id="p", box=WHOLE),
        lambda client: client.batch([PHOTO], box=WHOLE),
        lambda client: client.batch_embed([PHOTO], box=WHOLE),
    ],
)
def test_a_photo_of_the_index_and_a_batch_take_no_box(
    client: Client, service: Service, call: Callable[[Client], object]
) -> None:
    with pytest.raises(InputError, match=r"^box: "):
        call(client)
    assert service.sent == []


@pytest.mark.parametrize("box", [(2 / 3, 0, 1 / 3, 1), (0.9999999995, 0, 0.0000000005, 1), (0.1, 0.7, 0.9, 0.3)])
def test_rounding_does_not_put_a_box_beyond_the_photo(box: tuple[float, ...]) -> None:
    assert OPTION.validate_python(box_text(box))
