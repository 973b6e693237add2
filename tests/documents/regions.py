"""Marked regions of Markdown pages, which are written by programs. Knows nothing of what stands in them.

A region lies between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests import ROOT

_REGION = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The README, and every page under docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rewritten(text: str, facts: Mapping[str, Callable[[], str]]) -> str:
    """The page with every region as its function writes it now.

    Raises:
        KeyError: a region is named after no function.
    """
    return _REGION.sub(lambda region: f"{region[1]}\n{facts[region['name']]().strip()}\n\n{region[3]}", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
