"""Forms are parsed as Werkzeug parses them, only sooner."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.sansio.multipart import Event, MultipartDecoder, NeedData

from api.uploads.form_decoder import FormDecoder

_BOUNDARY = b"-b"
# Of what boundaries are made, so that contents are full of what is nearly one.
_PIECES = st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"b", b"-b", b"--b", b"---b", b"\r\n---b", b" ", b"x"])
_CONTENTS = st.lists(_PIECES, max_size=12).map(b"".join)


def _events(decoder: MultipartDecoder, body: bytes, cuts: list[int]) -> list[Event | str]:
    """What a decoder makes of a body that comes in parts; its error, where it raises one, is the last."""
    found: list[Event | str] = []
    ends = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    try:
        for start, end in [*pairwise(ends), (len(body), None)]:
            decoder.receive_data(None if end is None else body[start:end])
            while not isinstance(event := decoder.next_event(), NeedData):
                found.append(event)
                if type(event).__name__ == "Epilogue":
                    return found
    except ValueError as exc:
        found.append(str(exc))
    return found


@settings(max_examples=300)
@given(contents=st.lists(_CONTENTS, max_size=4), cuts=st.lists(st.integers(0, 400), max_size=6), ended=st.booleans())
def test_every_body_gives_the_events_of_werkzeugs_own_decoder(
    contents: list[bytes], cuts: list[int], ended: bool
) -> None:
    head = b'Content-Disposition: form-data; name="image"; filename="p.jpg"\r\n\r\n'
    body = b"".join(b"---b\r\n" + head + content + b"\r\n" for content in contents) + (b"---b--\r\n" if ended else b"")
    ours, theirs = (_events(made(_BOUNDARY), body, cuts) for made in (FormDecoder, MultipartDecoder))
    assert ours == theirs
