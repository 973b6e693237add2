"""What a check found, and what to do about it. Imports nothing that could be missing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # it works, and could be better
    FAIL = "fail"  # something will not work


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: the thing looked at.
        found: how it is.
        advice: what to do; empty where nothing is to be done.
    """

    what: str
    state: State
    found: str
    advice: str = ""


Findings = Iterator[Finding]
Check = Callable[[], Findings]


def ok(what: str, found: str) -> Finding:
    return Finding(what, State.OK, found)


def warn(what: str, found: str, advice: str) -> Finding:
    return Finding(what, State.WARN, found, advice)


def fail(what: str, found: str, advice: str) -> Finding:
    return Finding(what, State.FAIL, found, advice)


def run_check(name: str, check: Check) -> Findings:
    """What a check finds; that it could not look is a finding too."""
    try:
        yield from check()
    except ModuleNotFoundError as exc:
        yield fail(name, f"cannot be looked at: {exc.name} is not installed", "install what is missing, see wheels")
    except Exception as exc:  # one check that breaks must not hide what the others find
        yield fail(name, f"cannot be looked at: {type(exc).__name__}: {exc}", "report this: the check itself broke")
