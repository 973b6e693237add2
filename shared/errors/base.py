"""The root of the error tree, and its branches."""

from typing import ClassVar


class LookalikeError(Exception):
    """Root of the tree. `str(error)` is safe to show to the caller.

    Attributes:
        code: stable, machine-readable; part of the HTTP contract.
        http_status: status of the HTTP response when a request ends with the error.
        retryable: the same request may succeed later without being changed.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InputError(LookalikeError):
    """The request cannot be accepted as it is; the caller can correct it."""

    code = "invalid_request"
    http_status = 422


class Overload(LookalikeError):
    """The service cannot take the job now.

    Attributes:
        retry_after_s: whole seconds after which trying again makes sense.
    """

    code = "queue_unavailable"
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ArtifactError(LookalikeError):
    """A bundle or an index cannot be used; an operator can repair it."""

    code = "artifact_unusable"
    http_status = 503


class InternalError(LookalikeError):
    """A fault of the service; the log has the `request_id`.

    Stands for an exception that was not raised on purpose, and carries no detail of it.
    """
