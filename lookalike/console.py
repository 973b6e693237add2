"""The `lookalike` command: the service's command line where the service is installed, and else a word on how to."""

import sys
from importlib import import_module

_INSTALL = "pip install 'lookalike[run,torch]'"
_HERE = "This installation has the Python client alone (from lookalike import Client)"


def main() -> None:
    """Run the command line."""
    try:
        # By name: the client knows the service's rooms no more than they know it.
        command = import_module("pipeline.cli.main").main
    except ImportError as exc:
        _without_service(exc)
    else:
        command(prog_name="lookalike")


def _without_service(missing: ImportError) -> None:
    """`lookalike doctor` is for just such a machine; every other verb says what to install."""
    if sys.argv[1:2] == ["doctor"]:
        try:
            doctor = import_module("pipeline.cli.doctor").doctor
        except ImportError:
            pass  # not even the little it needs is there
        else:
            doctor(sys.argv[2:], prog_name="lookalike doctor")
    if isinstance(missing, ModuleNotFoundError):
        sys.exit(f"lookalike: {missing.name} is not installed. {_HERE}; the service and its verbs come with {_INSTALL}")
    sys.exit(f"lookalike: {missing.name or 'a package'} cannot be loaded ({missing}); `lookalike doctor` looks closer")
