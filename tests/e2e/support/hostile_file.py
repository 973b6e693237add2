"""One hostile or odd upload, with a claim: what may be answered, or whose embedding it must share."""

from dataclasses import dataclass

from tests.e2e.support.photo_bytes import (
    PLAIN,
)

ACCEPTED = frozenset({200})
TOO_LARGE = frozenset({413})
UNSUPPORTED = frozenset({415})
DAMAGED = frozenset({422})
REFUSED = TOO_LARGE | UNSUPPORTED | DAMAGED
ANYTHING = REFUSED | ACCEPTED  # decoders may differ about it, so long as they survive it


@dataclass(frozen=True)
class HostileFile:
    """One upload.

    Attributes:
        claim: what it is; the test's words when it fails.
        content: the file.
        statuses: what may be answered.
        twin: a plain photo of the same thing, whose embedding must be the same.
        filename: as it stands in the form, without quotes or escapes of ours.
    """

    claim: str
    content: bytes
    statuses: frozenset[int]
    twin: bytes | None = None
    filename: bytes = b"photo.jpg"


def twin(claim: str, content: bytes, plain: bytes = PLAIN, filename: bytes = b"photo.jpg") -> HostileFile:
    return HostileFile(claim, content, ACCEPTED, plain, filename)
