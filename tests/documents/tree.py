"""The file tree of the documentation: every file, with what its first line says of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

_QUIET_NAMES = {"__init__.py", "py.typed", ".git", ".gitignore", ".dockerignore", "LICENSE"}
_QUIET_SUFFIXES = {".pyc", ".png", ".svg", ".ico", ".so"}
_SPEECHLESS = {".json", ".csv", ".txt"}  # what has no comments
_NOT_OURS = re.compile(r"\.(?!ci$).*|var|build|node_modules|vendor|__pycache__|.*\.egg-info")
_COMMENT = re.compile(r"(?:#!.*\n)?(?:<!doctype html>\n)?(?:#+|//|--|/\*|<!--|\{#-?) +(.+?)(?: +\*/| +-->| +-?#\})?\n")

# What has no room for such a line.
_TOLD = {
    "api/static/": "what the page loads: modules, a stylesheet, Pico as it comes",
    "api/static/filters/": "the filter panel: its controls, and the filter that they make",
    "api/templates/": "pages",
    "api/templates/report.html": "a version of the index beside the one that was live when it was made",
    "deploy/": "how it is deployed, beside docker-compose.yml",
    "deploy/flower/": "the image of Flower",
    "deploy/grafana/dashboards/": "what Grafana shows",
    "deploy/grafana/dashboards/lookalike.json": "queue, throughput, latency, batches, cache, index and refusals",
    "deploy/grafana/provisioning/dashboards/": "read by Grafana at its start",
    "deploy/grafana/provisioning/datasources/": "read by Grafana at its start",
    "deploy/k8s/": "the service on Kubernetes",
    "deploy/prometheus/": "what Prometheus scrapes and watches",
    "docs/clients/quickstart.ipynb": "a notebook: the older service's calls, then batches, filters, a reindex",
    "docs/": "what the README has no room for",
    "docs/clients/": "for those who call the service",
    "docs/reference/": "tables that are written from the code",
    "findings/": "what surprised us in other people's libraries, as scripts that show it",
    "pipeline/cleaning/templates/": "pages",
    "pipeline/cleaning/templates/overview.html": "what was found in a dump",
    "pyproject.toml": "dependencies, tools, import rules",
    "requirements/": "hashed locks",
    "requirements/base.txt": "lock of everything but torch, for tests; others are of the image they are named after",
    "requirements/run.txt": "lock of what `make run` needs",
    "requirements/torch.txt": "lock of torch, for training and GPUs",
    "shared/jobs/lua/": "the job store's transitions, each one Redis script",
    ".ci/": "what a machine runs before a change lands",
}


def file_tree() -> str:
    """Every folder of the project, and every file in it.

    Raises:
        ValueError: one of them says nothing of itself.
    """
    lines = []
    for folder in [*_folders(ROOT), ROOT]:
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_listed(path)]
        if folder != ROOT and files:
            name = f"{folder.relative_to(ROOT)}/"
            lines.append(f"{name:27} {_told_of_folder(folder, name)}")
        margin = "" if folder == ROOT else "  "
        lines += [f"{margin + path.name:27} {_told_of(path)}".rstrip() for path in files]
    return "\n".join(["```text", *lines, "```"])


def _folders(parent: Path) -> Iterator[Path]:
    for folder in sorted(path for path in parent.iterdir() if path.is_dir() and not _NOT_OURS.fullmatch(path.name)):
        yield folder
        yield from _folders(folder)


def _is_listed(path: Path) -> bool:
    return path.name not in _QUIET_NAMES and path.suffix not in _QUIET_SUFFIXES


def _told_of_folder(folder: Path, name: str) -> str:
    package = folder / "__init__.py"
    return _TOLD.get(name) or (_first_line(package) if package.is_file() else _silent(name))


def _told_of(path: Path) -> str:
    name = str(path.relative_to(ROOT))
    return _TOLD.get(name) or _first_line(path)


def _first_line(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".py":
        told = ast.get_docstring(ast.parse(text))
    else:
        comment = _COMMENT.match(text)
        told = comment[1] if comment else None
    if told is None and path.suffix not in _SPEECHLESS:
        return _silent(str(path.relative_to(ROOT)))
    return (told or "").strip().split("\n")[0].removesuffix(".")


def _silent(name: str) -> str:
    raise ValueError(f"{name} says nothing of itself: give it a first line, or a place in {Path(__file__).name}")
