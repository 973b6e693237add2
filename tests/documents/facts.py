"""What the documentation tells of the code, by the name of its region: tables of settings, errors, metrics, options."""

import inspect
from collections.abc import Callable, Iterator
from types import MappingProxyType

from prometheus_client.core import Metric

from api.routes.metrics import ApiCounters, Quality, Snapshot
from shared import errors
from shared.catalogue.categories import CATEGORIES
from shared.jobs.records import Backlog
from shared.jobs.worker_report import IndexInfo, KindStats, StageTimes, WorkerReport, WorkerStats
from shared.quality.contract import CheckState, QualityCheck
from shared.quality.store import LiveQuality, Totals
from shared.settings import Settings
from tests.documents.commands import cli_reference, verb_table
from tests.documents.contract import api_reference, call_table
from tests.documents.regions import table
from tests.documents.tree import file_tree


def setting_table() -> str:
    """Every setting with its default and description."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "-" if field.default is None else str(field.default)
        rows.append((f"`LOOKALIKE_{name.upper()}`", default, field.description or ""))
    return table(["variable", "default", "meaning"], rows)


def error_table() -> str:
    """Every code of the error tree, and when it is answered: the first words of its class.

    Raises:
        ValueError: a class says nothing.
    """
    rows = []
    for error in _errors():
        told = inspect.cleandoc(error.__dict__["__doc__"] or "").split("\n\n")[0].removesuffix(".")
        if not told:
            raise ValueError(f"shared.errors.{error.__name__} needs a docstring: when is it answered?")
        rows.append((f"`{error.code}`", str(error.http_status), "yes" if error.retryable else "", told))
    return table(["code", "status", "try again", "when"], rows)


def _errors() -> Iterator[type[errors.LookalikeError]]:
    """One class for each code: that which is raised, neither a family of others nor a special case of another."""
    seen: set[str] = set()
    for error in vars(errors).values():
        if not isinstance(error, type) or not issubclass(error, errors.LookalikeError) or error.code in seen:
            continue
        if any(base.__dict__.get("code") == error.code and not _is_family(base) for base in error.__bases__):
            continue
        if not _is_family(error) or all(child.code == error.code for child in error.__subclasses__()):
            seen.add(error.code)
            yield error


def _is_family(error: type) -> bool:
    return error.__module__ == "shared.errors.base"


def metric_table() -> str:
    """Everything /metrics may tell."""
    rows = []
    for family in metric_families():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ",".join(label for label in family.samples[0].labels if label != "le")
        rows.append((f"`{name}{{{labels}}}`" if labels else f"`{name}`", family.type, family.documentation))
    return table(["metric", "type", "is"], rows)


def metric_families() -> Iterator[Metric]:
    """Everything /metrics may tell, each family with at least one sample."""
    index = IndexInfo(
        version="v", count=1, dimension=1, built_at="2026-01-01T00:00:00+00:00", catalogue="c", backbone="b",
        weights="w", model_fingerprint="f", model_version="m", metrics={},
    )  # fmt: skip
    searches = KindStats(outcomes={"succeeded": 1}, stages={"total": StageTimes()})
    stats = WorkerStats(by_kind={"search": searches}, batch_sizes={1: 1})
    worker = WorkerReport(
        name="w", pid=1, reported_at=0, state="ready", index=index, problem_code="index_damaged", stats=stats
    )
    counters = ApiCounters()
    counters.refused.labels("not_found").inc()
    counters.accepted.labels("embed").inc()
    snapshot = Snapshot(Backlog(queued={"bulk": 1}, running=1, oldest_wait_s=1), [worker])
    yield from snapshot.collect()
    checks = [QualityCheck(name="drift", state=CheckState.FINE, n_searches=1, detail="")]
    yield from Quality(LiveQuality(Totals({"category:c": 1}), checks, {"bars": 0.0})).collect()
    yield from counters.registry.collect()


def categories() -> str:
    """The 13 of them, in the order of the scores."""
    return "\n".join(f"{i}. {name}" for i, name in enumerate(CATEGORIES))


FACTS = MappingProxyType[str, Callable[[], str]](
    {
        "settings": setting_table,
        "errors": error_table,
        "metrics": metric_table,
        "categories": categories,
        "calls": call_table,
        "api-reference": api_reference,
        "verbs": verb_table,
        "cli-reference": cli_reference,
        "files": file_tree,
    }
)
