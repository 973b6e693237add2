"""Findings of a check, with advice. Imports the standard library only, so that it works where packages are missing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARN = "warn"  # it works, and could be better
    FAIL = "fail"  # something will not work


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: the thing checked.
        state: how bad it is.
        found: what the check found.
        advice: what to do; empty if nothing.
    """

    what: str
    state: State
    found: str
    advice: str = ""


Findings = Iterator[Finding]
Check = Callable[[], Findings]


def ok(what: str, found: str) -> Finding:
    """A finding that all is well."""
    return Finding(what, State.OK, found)


def warn(what: str, found: str, advice: str) -> Finding:
    """A finding of something that works and could be better."""
    return Finding(what, State.WARN, found, advice)


def fail(what: str, found: str, advice: str) -> Finding:
    """A finding of something that does not work."""
    return Finding(what, State.FAIL, found, advice)


def run_check(name: str, check: Check) -> Findings:
    """Run a check and yield its findings; an exception in the check becomes a finding too."""
    try:
        yield from check()
    except ModuleNotFoundError as exc:
        yield fail(name, f"cannot be looked at: {exc.name} is not installed", "install what is missing, see wheels")
    except Exception as exc:  # one check that breaks must not hide what the others find
        yield fail(name, f"cannot be looked at: {type(exc).__name__}: {exc}", "report this: the check itself broke")
