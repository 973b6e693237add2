"""What verbs with `--url` share: a service elsewhere, asked through the Python client as any user of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

from pipeline.cli.common import exit_with_error, print_progress

if TYPE_CHECKING:  # heavy: only for what is asked for
    from lookalike import Client

_TIMEOUT_S = 20.0
_SILENT_S = 1.0
_CAUSE_WITHIN_S = 2.0
_LATE = ("timed_out", "deadline_exceeded")
_MAY_SEARCH_YET = (401, 403, 503)  # the key may only submit, or nothing serves now: the search itself says more


@contextmanager
def service_at(url: str, *, as_json: bool) -> Iterator["Client"]:
    """Provide a client of a service, and tell on standard error what is waited for if that lasts.

    An error in the body is printed, with what the service says of its workers where they are the likely cause, and the
    program exits with code 1.

    Args:
        url: of the service.
        as_json: print an error as one JSON object instead of text.
    """
    from lookalike import Client, LookalikeError

    where, left_s = url.rpartition("@")[2], _TIMEOUT_S - _SILENT_S  # without a password
    notice = Timer(_SILENT_S, print_progress, [f"{where} has not answered yet: trying for {left_s:.0f} s more"])
    try:
        with Client(url, timeout_s=_TIMEOUT_S) as client:
            notice.start()
            yield client
    except LookalikeError as exc:
        notice.cancel()
        detail = f"job {exc.job_id}: {_cause(url)}" if exc.code in _LATE else exc.detail
        exit_with_error(exc.code, detail, as_json=as_json)
    finally:
        notice.cancel()


def _cause(url: str) -> str:
    """Say why a job has not ended in time, as far as the service knows, and what to do."""
    from lookalike import Client, LookalikeError

    late = f"no result within {_TIMEOUT_S:.0f} s"
    try:
        with Client(url, timeout_s=_CAUSE_WITHIN_S) as client:
            found = client.ready()
    except LookalikeError as exc:
        return f"{late}: {exc.detail}"
    if not found.ready:
        return f"{late}: {', '.join(found.problems)}; start a worker, or look into its log"
    return f"{late}: the workers that are ready ({found.workers}) have more to do; try again later, or start more"


def search_remote(
    photos: Sequence[Path], options: Mapping[str, Any], url: str, default_include: Sequence[str], *, as_json: bool
) -> dict[str, Any]:
    """Search for photos at a running service; on an error, print that and exit with code 1.

    Args:
        photos: image files, which are one query; none where `options` name a listing.
        options: of the search.
        url: of the service.
        default_include: attributes to ask for where `options` name none, as far as the service's catalogue has them.
        as_json: print an error as one JSON object instead of text.

    Returns:
        the result as JSON.
    """
    from lookalike import LookalikeError

    with service_at(url, as_json=as_json) as client:
        if "include" not in options:
            try:
                names = {attribute.name for attribute in client.index().attributes}
            except LookalikeError as exc:
                if exc.status not in _MAY_SEARCH_YET:
                    raise
                names = set()
            options = {**options, "include": [name for name in default_include if name in names]}
        return client.search(list(photos) or None, **options).model_dump(mode="json", exclude_none=True)
