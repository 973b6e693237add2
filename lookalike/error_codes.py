"""The error class of a service's answer, chosen by its error code and HTTP status."""

from collections.abc import Iterator

from lookalike.errors import (
    AccessDenied,
    Conflict,
    InputError,
    LookalikeError,
    NotFound,
    NotServing,
    Overload,
    ServiceError,
    UnsupportedFormat,
    UploadTooLarge,
)

_FAMILY_OF_STATUS: dict[int, type[LookalikeError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: UploadTooLarge,
    415: UnsupportedFormat,
    429: Overload,
    502: Overload,
    503: Overload,
    504: Overload,
    507: NotServing,
}


def error_class(code: str, status: int) -> type[LookalikeError]:
    """Choose the error class for an answer that is an error.

    Args:
        code: the `code` of the answer; one that a newer service added is possible.
        status: the HTTP status of the answer.

    Returns:
        The class whose `default_code` is `code`; for an unknown code the family of the HTTP status.
    """
    for known in _tree(LookalikeError):
        if known.default_code == code:
            return known
    return _FAMILY_OF_STATUS.get(status, InputError if 400 <= status < 500 else ServiceError)


def _tree(root: type[LookalikeError]) -> Iterator[type[LookalikeError]]:
    """Yield all error classes, subclasses first: `internal_error` is found as ServiceError before LookalikeError."""
    for child in root.__subclasses__():
        yield from _tree(child)
    yield root
