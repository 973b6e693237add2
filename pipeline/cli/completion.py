"""`lookalike completion`: shell completion of verbs, options and versions."""

import json
from contextlib import suppress

import click
from click.shell_completion import get_completion_class

from pipeline.cli.common import json_option
from pipeline.cli.help import with_examples
from shared.artifacts.snapshots import bundle_store, index_store
from shared.artifacts.store import ArtifactStore
from shared.errors import LookalikeError
from shared.settings import load_settings

_PROGRAM = "lookalike"
_VARIABLE = "_LOOKALIKE_COMPLETE"  # what click looks for


def index_versions(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete index versions that start with what was typed, newest first."""
    with suppress(LookalikeError, OSError):
        return _beginning(index_store(load_settings().home), begun)
    return []


def bundle_versions(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete bundle versions that start with what was typed, newest first."""
    with suppress(LookalikeError, OSError):
        return _beginning(bundle_store(load_settings().home), begun)
    return []


def _beginning(store: ArtifactStore, begun: str) -> list[str]:
    return [version for version in reversed(store.versions()) if version.startswith(begun)]


@with_examples(
    'eval "$(lookalike completion bash)"          # in ~/.bashrc',
    'eval "$(lookalike completion zsh)"           # in ~/.zshrc, behind compinit',
    "lookalike completion fish > ~/.config/fish/completions/lookalike.fish",
)
@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete this command's verbs, options and versions."""
    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, _PROGRAM, _VARIABLE).source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
