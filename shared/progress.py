"""The callback that long-running work reports its progress to."""

from collections.abc import Callable

ReportProgress = Callable[[str], None]
"""Takes one line of text for a person: what was found, decided or finished."""
