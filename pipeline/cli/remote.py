"""`lookalike search --url`: a search by a service elsewhere, through the Python client as any user of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.common import exit_with_error

_TIMEOUT_S = 20.0
_MAY_SEARCH_YET = (401, 403, 503)  # the key may only submit, or nothing serves now: the search itself says more


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
    from lookalike import Client, LookalikeError

    try:
        with Client(url, timeout_s=_TIMEOUT_S) as client:
            if "include" not in options:
                try:
                    names = {attribute.name for attribute in client.index().attributes}
                except LookalikeError as exc:
                    if exc.status not in _MAY_SEARCH_YET:
                        raise
                    names = set()
                options = {**options, "include": [name for name in default_include if name in names]}
            result = client.search(list(photos) or None, **options)
    except LookalikeError as exc:
        exit_with_error(exc.code, exc.detail, as_json=as_json)
    return result.model_dump(mode="json", exclude_none=True)
