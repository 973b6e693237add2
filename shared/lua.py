"""Reads the Redis scripts that lie in `.lua` files beside the modules that run them."""

import re
from collections.abc import Mapping
from pathlib import Path

_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")


def load_script(
    path: Path, *, flags: tuple[str, ...] = (), include: tuple[str, ...] = (), constants: Mapping[str, int | str] = {}
) -> str:
    """Read a script, ready to be registered with Redis.

    Args:
        path: the script's file.
        flags: Redis's script flags, as `allow-oom` or `no-writes`.
        include: names of files in the same folder to put before it, in this order; it sees their local functions.
        constants: what `@NAME@` stands for in any of these files; becomes a Lua number or string.

    Raises:
        ValueError: a placeholder has no constant, or a constant no placeholder.
    """
    source = "".join(file.read_text(encoding="utf-8") for file in [*map(path.with_name, include), path])
    names = set(_PLACEHOLDER.findall(source))
    if names != constants.keys():
        differing = ", ".join(sorted(names ^ constants.keys()))
        raise ValueError(f"{path.name}: placeholders and constants differ in {differing}")
    body = _PLACEHOLDER.sub(lambda found: _literal(constants[found[1]]), source)
    # Redis reads the flags in the very first line or not at all.
    return f"#!lua{' flags=' + ','.join(flags) if flags else ''}\n{body}"


def _literal(value: int | str) -> str:
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
