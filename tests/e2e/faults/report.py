"""What a run of chaos is like, and its account at the end."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.support.ledger import Ledger
from tests.e2e.support.memory import Process, Sample

DRAIN_WITHIN_S = 120


@dataclass(frozen=True)
class Plan:
    """What a run is like.

    Attributes:
        per_s: submits a second of all clients; 0: half of what the service can do.
        tenants: API keys, each with clients of its own; 0: none is needed.
        whole: catalogue that the served one grows towards, by reindexes, while photos are put and deleted live; None:
            it stays as it is.
        served: where the catalogue lies that is served.
        write: writes a file of it.
        deletable: photos of it that may be deleted, by id.
        reindex_every_s: on average.
        memory: file for what processes take; some parts are never killed then; None: any may be.
        bystanders: ids of processes that are no part of the service, by name: watched too.
    """

    duration_s: float
    seed: int = 17
    per_s: float = 0
    tenants: int = 0
    whole: Path | None = None
    served: str = ""
    write: Callable[[str, bytes], object] | None = None
    deletable: Mapping[str, bytes] = field(default_factory=dict)
    reindex_every_s: float = 240
    memory: Path | None = None
    bystanders: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Report:
    """The account of one run."""

    accepted: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    reindexes: Counter[str] = field(default_factory=Counter)
    memory: Mapping[Process, tuple[Sample, Sample]] = field(default_factory=dict)
    redis_mb: list[float] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.lost or self.duplicated or self.errors)

    def add(self, ledger: Ledger) -> None:
        """Settle the accounts of one key's jobs."""
        audit = ledger.audit(DRAIN_WITHIN_S)
        self.accepted += len(ledger.accepted)
        self.finished += audit.by_status
        self.failures += ledger.failures()
        self.lost += audit.lost
        self.duplicated += audit.duplicated

    def __str__(self) -> str:
        grown = [
            f"memory      {part} {pid}: {early.resident:.0f} -> {late.resident:.0f} MB resident "
            f"({late.resident / early.resident - 1:+.1%}), {early.anonymous:.0f} -> {late.anonymous:.0f} of no file, "
            f"{early.proportional:.0f} -> {late.proportional:.0f} proportional"
            for (part, pid), (early, late) in sorted(self.memory.items())
        ]
        return "\n".join(
            [
                f"accepted    {self.accepted}",
                f"finished    {told(self.finished)}",
                f"failed      {told(self.failures)}",
                f"lost        {len(self.lost)} {' '.join(self.lost[:10])}".rstrip(),
                f"duplicated  {len(self.duplicated)} {'; '.join(self.duplicated[:10])}".rstrip(),
                f"unexplained {len(self.errors)} {'; '.join(self.errors[:5])}".rstrip(),
                f"not taken   {told(self.refused)}, each tried again until it was",
                f"latency     {percentiles(self.latencies_s)}, outages included",
                f"faults      {self.faults.total()}: {told(self.faults)}",
                f"changed     {self.changes} photos put or deleted live; reindexes: {told(self.reindexes)}",
                *grown,
                *([f"redis       holds {', '.join(f'{mb:.1f}' for mb in self.redis_mb)} MB"] if self.redis_mb else []),
                "PASSED" if self.passed else "FAILED",
            ]
        )


def told(counts: Counter[str]) -> str:
    """Counts, for people."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def percentiles(latencies_s: list[float]) -> str:
    """The middle and the slow end of what took so long, for people."""
    if len(latencies_s) < 2:
        return "p50 - p95 -"
    cuts = statistics.quantiles(latencies_s, n=20)
    return f"p50 {cuts[9]:.2f} s p95 {cuts[18]:.2f} s"
