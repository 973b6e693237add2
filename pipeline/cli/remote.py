"""A search by a service somewhere else: the one place where a room uses the client, as any user of it does."""

import json
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.cli.common import print_facts

_PATIENCE_S = 20.0


def search_remote(photo: Path, k: int, url: str, as_json: bool) -> None:
    """Search at `url`, and print what it answers."""
    from lookalike import Client, LookalikeError

    try:
        with Client(url, timeout_s=_PATIENCE_S) as client:
            result = client.search(photo, k=k)
    except LookalikeError as exc:
        _refuse(exc.code, exc.detail, as_json)
    facts = result.model_dump(mode="json", exclude_none=True)
    print_facts(as_json, facts, "\n".join(answer_lines(facts)))


def answer_lines(result: dict[str, Any]) -> list[str]:
    """A search result, for people."""
    lines = [f"{score['probability']:6.1%}  {score['name']}" for score in result["category"]["top"]]
    return lines + [f"{n['rank']:3d}. {n['score']:.3f}  {n['image_id']}  {n['category']}" for n in result["neighbours"]]


def _refuse(code: str, detail: str, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "detail": detail}}))
    else:
        click.echo(f"error: {detail}", err=True)
    raise SystemExit(1)
