"""Runs a notebook as Jupyter would, cell after cell in one namespace: `python -m tests.documents.notebook FILE`.

What a cell ends with is shown, pictures as their size. An exception tells its cell.
"""

import ast
import json
import sys
from pathlib import Path


def code_cells(notebook: Path) -> list[str]:
    """The source of each code cell."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(notebook: Path) -> None:
    """Every code cell, in order."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(code_cells(notebook), 1):
        place = f"{notebook.name}, code cell {number}"
        *statements, last = ast.parse(source).body
        if not isinstance(last, ast.Expr):
            statements.append(last)
        exec(compile(ast.Module(statements, []), place, "exec"), namespace)
        if isinstance(last, ast.Expr):
            _show(eval(compile(ast.Expression(last.value), place, "eval"), namespace))


def _show(value: object) -> None:
    if draw := getattr(value, "_repr_png_", None):
        print(f"a picture of {len(draw())} bytes")
    elif value is not None:
        print(value)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
