"""`lookalike search --url`: a search by a service elsewhere, through the Python client as any user of it."""

from pathlib import Path
from typing import Any

from pipeline.cli.common import exit_with_error, print_facts

_TIMEOUT_S = 20.0


def search_remote(photo: Path, k: int, url: str, as_json: bool) -> None:
    """Search for a photo at a running service and print its result; on an error, print that and exit with code 1.

    Args:
        photo: an image file.
        k: neighbours wanted.
        url: of the service.
        as_json: print one JSON object instead of text.
    """
    from lookalike import Client, LookalikeError

    try:
        with Client(url, timeout_s=_TIMEOUT_S) as client:
            result = client.search(photo, k=k)
    except LookalikeError as exc:
        exit_with_error(exc.code, exc.detail, as_json=as_json)
    facts = result.model_dump(mode="json", exclude_none=True)
    print_facts(as_json, facts, "\n".join(answer_lines(facts)))


def answer_lines(result: dict[str, Any]) -> list[str]:
    """Lines of text for a search result: the categories with their probabilities, then the neighbours.

    Of categories of several levels that are not certain, what is certain of the path comes first.
    """
    category = result["category"]
    lines = [f"{score['probability']:6.1%}  {score['name']}" for score in category["top"]]
    if (part := category.get("certain_path")) and not category["certain"]:
        lines.insert(0, f"{part['probability']:6.1%}  {part['name']}, of which it is certain; perhaps:")
    return lines + [f"{n['rank']:3d}. {n['score']:.3f}  {n['image_id']}  {n['category']}" for n in result["neighbours"]]
