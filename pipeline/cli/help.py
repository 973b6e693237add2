"""Examples beneath the options of `--help`. Imports only click, so that `doctor` runs where packages are missing."""

from collections.abc import Callable
from typing import TypeVar

import click

C = TypeVar("C", bound=click.Command)


def with_examples(*examples: str) -> Callable[[C], C]:
    """Decorate a verb with examples for its help.

    Args:
        examples: a command line each.
    """

    def add_examples(command: C) -> C:
        command.epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])
        return command

    return add_examples
