"""What every benchmark leaves behind: a table on the terminal, var/bench/NAME.json and var/bench/NAME.png.

Knows nothing of what is measured. Figures travel with the machine, its load and the command that gave them.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path("var/bench")
_LIBRARIES = ("celery", "faiss-cpu", "gunicorn", "mosec", "numpy", "openvino", "redis", "torch")
_LOG_FROM = 50.0  # times between smallest and largest

Value = str | int | float | bool | None
Row = dict[str, Value]


class Report:
    """One run of one benchmark.

    Args:
        facts: what is true of the whole run.
    """

    def __init__(self, name: str, **facts: Value) -> None:
        self.facts: dict[str, Value] = facts
        self._name = name
        self._machine = machine()
        self._load_before = os.getloadavg()
        self._tables: dict[str, list[Row]] = {}
        self._panels: list[tuple[str, str, str, str]] = []

    def add(self, table: str, **row: Value) -> None:
        """One more row of a table."""
        self._tables.setdefault(table, []).append(row)

    def plot(self, table: str, x: str, y: str, by: str) -> None:
        """A panel of the picture: column `y` over column `x`, a line for each `by`; none without rows."""
        self._panels.append((table, x, y, by))

    def save(self) -> Path:
        """Write as JSON what there is so far."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        told = {
            "command": " ".join(["python -m", f"tests.benchmarks.{self._name}", *sys.argv[1:]]),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self._machine,
            "load_average": {"before": self._load_before, "after": os.getloadavg()},
            "facts": self.facts,
            "tables": self._tables,
        }
        target = RESULTS / f"{self._name}.json"
        target.write_text(json.dumps(told, indent=1) + "\n")
        return target

    def finish(self) -> None:
        """Print the tables; write them as JSON and as a picture."""
        target = self.save()
        self._panels = [panel for panel in self._panels if panel[0] in self._tables]
        if self._panels:
            self._draw(target.with_suffix(".png"))
        print(f"\n{self._name}: {', '.join(f'{name} {_cell(value)}' for name, value in self.facts.items())}")
        print(f"{self._machine['cpu']}, {self._machine['cores']} cores; load {_loads(self._load_before)} before")
        for title, rows in self._tables.items():
            print(f"\n{title}\n{table(rows)}")
        print(f"\nwritten to {target}", flush=True)

    def _draw(self, target: Path) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            1, len(self._panels), figsize=(5.5 * len(self._panels), 4), squeeze=False, layout="constrained"
        )
        for axis, (title, x, y, by) in zip(axes[0], self._panels, strict=True):
            rows = self._tables[title]
            ticks = list(dict.fromkeys(row[x] for row in rows))
            for label in dict.fromkeys(row[by] for row in rows):
                points = [(ticks.index(row[x]), row[y]) for row in rows if row[by] == label and row[y] is not None]
                axis.plot(*zip(*points, strict=True), marker="o", label=str(label))
            axis.set_xticks(range(len(ticks)), [f"{tick:,}" if isinstance(tick, int) else str(tick) for tick in ticks])
            axis.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), title=title)
            values = [value for row in rows if isinstance(value := row[y], int | float)]
            if min(values) > 0 and max(values) / min(values) > _LOG_FROM:
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize="small")
        figure.suptitle(f"{self._machine['cpu']}, {self._machine['cores']} cores", fontsize="small")
        figure.savefig(target, dpi=120)
        pyplot.close(figure)


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text; the columns are those of the first."""
    columns = list(rows[0])
    cells = [
        [column.replace("_", " ") for column in columns],
        *([_cell(row[name]) for name in columns] for row in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [not isinstance(rows[0][column], str) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def machine() -> dict[str, Value]:
    """What figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := _version(name))},
    }


def _cpu() -> str:
    """The model's name, its number (clouds hide the name), and the instructions that multiply integers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(known.get("flags", known.get("Features", "")).split())
    units = [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp") if name in flags]
    number = [f"{key} {known[key]}" for key in ("cpu family", "model") if key in known]
    return f"{known.get('model name', platform.machine())} ({', '.join([*number, *units])})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _loads(loads: tuple[float, float, float]) -> str:
    return " ".join(f"{load:.2f}" for load in loads)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
