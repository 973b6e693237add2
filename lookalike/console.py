"""The `lookalike` command: the service's command line if the service is installed, else how to install it."""

import sys
from collections.abc import Callable
from importlib import import_module

_INSTALL = "pip install 'lookalike[run]'"
_HERE = "This installation has the Python client alone (from lookalike import Client)"


def main() -> None:
    """Run the command line with the arguments of `sys.argv`; the entry point of the `lookalike` command."""
    try:
        command = _service_command()
    except ImportError as exc:
        _without_service(exc)
    else:
        command(prog_name="lookalike")


def _service_command() -> Callable[..., None]:
    """Import it by name: the client must not import the service, which may not be installed.

    Raises:
        ImportError: it is not installed, or a package that it needs cannot be loaded.
    """
    with import_module("shared.collector").collector_paused():
        command: Callable[..., None] = import_module("pipeline.cli.main").main
    return command


def _without_service(missing: ImportError) -> None:
    """Run `lookalike doctor`, which checks such a machine; for every other verb, exit with what to install."""
    if sys.argv[1:2] == ["doctor"]:
        try:
            doctor = import_module("pipeline.cli.doctor").doctor
        except ImportError:
            pass  # the packages that doctor needs are missing too
        else:
            doctor(sys.argv[2:], prog_name="lookalike doctor")
    if isinstance(missing, ModuleNotFoundError):
        sys.exit(f"lookalike: {missing.name} is not installed. {_HERE}; the service and its verbs come with {_INSTALL}")
    sys.exit(f"lookalike: {missing.name or 'a package'} cannot be loaded ({missing}); `lookalike doctor` looks closer")
