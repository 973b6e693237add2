"""Packages hidden from this process, as if they were not installed: `sys.modules[name] = None` confuses libraries."""

import sys
from importlib.machinery import ModuleSpec
from typing import Any


class _WithoutThem:
    """A finder that does not find them; its metadata are found as before."""

    def __init__(self, finder: Any, hidden: tuple[str, ...]) -> None:
        self._finder, self._hidden = finder, hidden

    def find_spec(self, name: str, *others: Any) -> ModuleSpec | None:
        found: ModuleSpec | None = self._finder.find_spec(name, *others)
        return None if name.partition(".")[0] in self._hidden else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide(*packages: str) -> None:
    """Let packages not be found by imports of this process from now on."""
    sys.meta_path[:] = [_WithoutThem(finder, packages) for finder in sys.meta_path]
