"""What `--help` says beneath the options: examples to copy. Imports nothing that could be missing."""

from collections.abc import Callable
from typing import TypeVar

import click

C = TypeVar("C", bound=click.Command)


def with_examples(*examples: str) -> Callable[[C], C]:
    """Give a verb examples, each a command line."""

    def add_examples(command: C) -> C:
        command.epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])
        return command

    return add_examples
