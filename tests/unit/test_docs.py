"""The README keeps up: every setting, error code, option, metric, verb, file and make target is in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from api.metrics import ApiCounters, Snapshot
from pipeline.cli import main
from shared import errors
from shared.catalogue import CATEGORIES
from shared.jobs import (
    EmbedRequest,
    ImageOptions,
    IndexInfo,
    SearchRequest,
    StageTimes,
    Submission,
    WorkerReport,
    WorkerStats,
)
from shared.settings import Settings
from shared.store.records import Backlog

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = "-" if default is None else str(default)
    assert f"| `LOOKALIKE_{name.upper()}` | {shown} |" in README


def _codes() -> set[str]:
    return {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.LookalikeError)
    }


@pytest.mark.parametrize("code", sorted(_codes()))
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in README


@pytest.mark.parametrize(
    "option",
    sorted({name for taken in (SearchRequest, EmbedRequest, ImageOptions, Submission) for name in taken.model_fields}),
)
def test_every_option_is_documented(option: str) -> None:
    assert f"`{option}`" in README or f'"{option}"' in README


def _metrics() -> set[tuple[str, frozenset[str]]]:
    """Name and labels of everything /metrics may tell, as Prometheus shows them."""
    index = IndexInfo(
        version="v", count=1, dimension=1, built_at="2026-01-01T00:00:00+00:00", catalogue="c", backbone="b",
        weights="w", model_fingerprint="f", model_version="m", metrics={},
    )  # fmt: skip
    stats = WorkerStats(outcomes={"succeeded": 1}, stages={"total": StageTimes()}, batch_sizes={1: 1})
    worker = WorkerReport(name="w", pid=1, reported_at=0, state="ready", index=index, stats=stats)
    counters = ApiCounters()
    counters.refused.labels("not_found").inc()
    counters.accepted.labels("embed").inc()
    snapshot = Snapshot(Backlog(queued={"bulk": 1}, running=1, oldest_wait_s=1), [worker])
    return {
        (family.name + ("_total" if family.type == "counter" else ""), frozenset(sample.labels) - {"le"})
        for family in [*snapshot.collect(), *counters.registry.collect()]
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_every_metric_is_documented_with_its_labels_and_every_documented_one_exists() -> None:
    section = README.split("## Metrics")[1].split("\n## ")[0]
    named = re.findall(r"`(lookalike_[a-z_]+)(?:\{([a-z,]+)\})?`", section)
    assert {(name, frozenset(filter(None, labels.split(",")))) for name, labels in named} == _metrics()


def _verbs(group: click.Group, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _verbs(command, f"{prefix}{name} ")
        else:
            yield prefix + name


@pytest.mark.parametrize("verb", list(_verbs(main)))
def test_every_verb_is_documented_and_has_a_help_and_json(verb: str) -> None:
    assert re.search(rf"`{verb}( \[?[A-Z]+\]?)?`", README)
    command: click.Command = main
    for word in verb.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_the_file_tree_has_a_line_for_every_file() -> None:
    quiet = {"__init__.py", ".git", ".gitignore", ".dockerignore", "LICENSE"}
    folders = ("api", "worker", "pipeline", "shared", "tests", "requirements", ".ci")
    found = [path for name in folders for path in (ROOT / name).rglob("*")] + list(ROOT.iterdir())
    present = [path for path in found if path.is_file() and path.suffix != ".pyc" and path.name not in quiet]
    folder, documented = "", set()
    for line in README.split("## The house")[1].split("```")[1].splitlines():
        name = line.strip().split(" ")[0]
        if line.startswith("  ") or not name.endswith("/"):
            documented.add((folder if line.startswith("  ") else "") + name)
        else:
            folder = name
    assert documented - {""} == {str(path.relative_to(ROOT)) for path in present}


def test_every_make_target_named_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", README)) <= targets
    assert {"setup", "run", "test", "check", "bench", "clean"} <= targets


def test_the_categories_are_listed_in_the_order_of_the_scores() -> None:
    flat = README.replace("\n", " ")
    assert "; ".join(CATEGORIES) in flat
