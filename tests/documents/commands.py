"""The command line's reference, from the command line itself."""

import inspect
from collections.abc import Iterator

import click

from pipeline.cli.main import main
from tests.documents.regions import table


def verbs(group: click.Group = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb with its full name, in the order of `lookalike --help`."""
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from verbs(command, f"{path}{name} ")
        else:
            yield path + name, command


def verb_table() -> str:
    """What each verb does, in its own first sentence."""
    return table(
        ["verb", "does"],
        ((f"[`{name}`](#{_anchor(name)})", _help(command).split("\n\n")[0]) for name, command in verbs()),
    )


def cli_reference() -> str:
    """A section for each verb: usage, help, options."""
    return "\n\n".join(_section(name, command) for name, command in verbs())


def _anchor(name: str) -> str:
    return "lookalike-" + name.replace(" ", "-")


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command)
    usage = " ".join(["lookalike", name, *command.collect_usage_pieces(context)])
    options = [option for option in command.params if isinstance(option, click.Option) and option.name != "as_json"]
    rows = [option.get_help_record(context) for option in options]
    listed = table(["option", ""], [(f"`{row[0]}`", row[1]) for row in rows if row]) if rows else ""
    examples = "\n".join(["```text", *_examples(command), "```"])
    return "\n\n".join(filter(None, [f"### lookalike {name}", f"`{usage}`", _help(command), listed, examples]))


def _examples(command: click.Command) -> list[str]:
    """The lines beneath the word."""
    return [line.strip() for line in (command.epilog or "").partition("Examples:\n")[2].splitlines()]


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")
