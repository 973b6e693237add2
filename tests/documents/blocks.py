"""Fenced blocks of the documentation: which commands a reader will type, and which of them tests cannot.

A block of commands (`sh`, `console`, `python`) is run, unless the line that opens it gives a reason: ```sh not run: …
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

COMMANDS = frozenset({"sh", "console", "python"})
_FENCE = re.compile(
    r"^(?P<margin> *)```(?P<language>\w*) *(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=margin)```$", re.MULTILINE | re.DOTALL
)
_REASON = re.compile(r"not run: (.+)")


@dataclass(frozen=True)
class Block:
    """One of them.

    Attributes:
        line: of the page, where it opens; the first is 1.
        info: what stands behind the language.
    """

    line: int
    language: str
    info: str
    text: str

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        found = _REASON.fullmatch(self.info)
        return found[1] if found else None

    @property
    def is_run(self) -> bool:
        return self.language in COMMANDS and not self.reason

    @property
    def commands(self) -> str:
        """Without prompts and what is shown as answers."""
        if self.language != "console":
            return self.text
        return "".join(line[2:] for line in self.text.splitlines(keepends=True) if line.startswith(("$ ", "> ")))


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(
            text.count("\n", 0, found.start()) + 1, found["language"], found["info"].strip(), dedent(found["text"])
        )
