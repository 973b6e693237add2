"""Live quality in Redis: counts by hour and index version for the report, and the last searches for the checks.

Keys (prefix `lookalike:`):
    quality:hours              sorted set of VERSION|HOUR by the time of its last search; expires
    quality:VERSION:HOUR       hash of counts; expires
    quality:last:FINGERPRINT   list of a model's last searches as JSON, newest first, WINDOW at most; expires
    quality:total              hash of counts, of all hours; no TTL: one small hash, from which metrics are told
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, cast

import redis

from shared.jobs.records import PREFIX
from shared.jobs.worker_report import STAGE_BOUNDS_S, StageTimes
from shared.quality.checks import WINDOW, check, shifts
from shared.quality.contract import (
    FEATURES,
    DayQuality,
    QualityCheck,
    QualityFigures,
    QualityReport,
    ShadowedSearch,
    StageFigures,
    VersionQuality,
)
from shared.redis_clock import RedisClock

KEPT_S = 8 * 86_400  # a week, and the day that is under way
STAGES = ("model", "search")
_HOURS = PREFIX + "quality:hours"
_TOTAL = PREFIX + "quality:total"
_HOUR_S = 3600
_PARTS = 1000  # of recall and of scores: whole numbers add up to the same in any order

Counts = Mapping[str, int]


class QualityStore:
    """Writes shadowed searches, and reads what they come to; any number of workers may write.

    Args:
        client: bytes-returning client; its errors pass through unchanged.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] | None = None) -> None:
        self._redis = client
        self._clock = clock or RedisClock(client)

    def add(self, search: ShadowedSearch) -> None:
        """Count one shadowed search."""
        now = self._clock()
        hour = int(now // _HOUR_S)
        counts, last = f"{PREFIX}quality:{search.version}:{hour}", _last(search.fingerprint)
        kept = (search.version, search.recall, search.n_audited, search.n_damaged, search.deviations)
        with self._redis.pipeline(transaction=False) as pipe:
            for name, n in _counted(search).items():
                pipe.hincrby(counts, name, n)
                pipe.hincrby(_TOTAL, name, n)
            pipe.hset(counts, "fingerprint", search.fingerprint)
            pipe.expire(counts, KEPT_S)
            pipe.zadd(_HOURS, {f"{search.version}|{hour}": now})
            pipe.zremrangebyscore(_HOURS, "-inf", now - KEPT_S)
            pipe.expire(_HOURS, KEPT_S)
            pipe.lpush(last, json.dumps(kept, separators=(",", ":")))
            pipe.ltrim(last, 0, WINDOW - 1)
            pipe.expire(last, KEPT_S)
            pipe.execute()

    def last(self, fingerprint: str) -> list[ShadowedSearch]:
        """Return the last shadowed searches of a model, newest first, as far as the checks need them."""
        raw = cast(list[bytes], self._redis.lrange(_last(fingerprint), 0, WINDOW - 1))
        return [search for one in raw if (search := _parsed(one, fingerprint))]

    def total(self) -> "Totals":
        """Return what was counted since ever."""
        return Totals(_decoded(self._redis.hgetall(_TOTAL)))

    def live(self, live: tuple[str, str] | None) -> "LiveQuality":
        """Check the last searches.

        Args:
            live: version of the index and fingerprint of the model that answer; None: not known, and nothing is
                checked.
        """
        last = self.last(live[1]) if live else []
        checks = check(last, live[0]) if live else []
        return LiveQuality(self.total(), checks, {shift.name: round(shift.mean, 3) for shift in shifts(last)})

    def report(self, since_s: float, live: tuple[str, str] | None) -> QualityReport:
        """Report the shadowed searches of some time, by version and by day, and check the last ones.

        Args:
            since_s: seconds before now; hours count as a whole.
            live: see `live`.
        """
        until = self._clock()
        first = int((until - since_s) // _HOUR_S)
        raw = cast(list[bytes], self._redis.zrangebyscore(_HOURS, until - since_s, "+inf"))
        names = [(version, int(hour)) for version, _, hour in (one.decode().rpartition("|") for one in raw)]
        hours = [(version, hour) for version, hour in names if hour >= first]
        with self._redis.pipeline(transaction=False) as pipe:
            for version, hour in hours:
                pipe.hgetall(f"{PREFIX}quality:{version}:{hour}")
            found = pipe.execute()
        everything: Counter[str] = Counter()
        by_version: dict[tuple[str, str], Counter[str]] = {}
        by_day: dict[str, Counter[str]] = {}
        for (version, hour), record in zip(hours, found, strict=True):
            counts = _decoded(record)
            fingerprint = record.get(b"fingerprint", b"").decode()
            day = datetime.fromtimestamp(hour * _HOUR_S, UTC).date().isoformat()
            for into in (
                everything,
                by_version.setdefault((version, fingerprint), Counter()),
                by_day.setdefault(day, Counter()),
            ):
                into.update(counts)
        now = self.live(live)
        return QualityReport(
            since=until - since_s,
            until=until,
            live_version=live[0] if live else None,
            checks=now.checks,
            drift=now.drift,
            figures=_figures(everything),
            versions=[
                VersionQuality(version=version, fingerprint=fingerprint, figures=_figures(counts))
                for (version, fingerprint), counts in sorted(by_version.items(), reverse=True)
            ],
            days=[DayQuality(day=day, figures=_figures(counts)) for day, counts in sorted(by_day.items())],
        )


class LiveQuality(NamedTuple):
    """Live quality at one moment.

    Attributes:
        totals: what was counted since ever.
        checks: of the last searches; none while nothing is served.
        drift: how far they lie from the reference, by feature.
    """

    totals: "Totals"
    checks: list[QualityCheck]
    drift: dict[str, float]


class Totals:
    """What was counted since ever, for metrics.

    Args:
        counts: by name.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def __getitem__(self, name: str) -> int:
        """How many: `n` searches, `unsure` ones, rows `audited` and `damaged`."""
        return self._counts.get(name, 0)

    @property
    def recalled(self) -> float:
        """The sum of all searches' recall."""
        return self["recall"] / _PARTS

    @property
    def scores(self) -> float:
        """The sum of all searches' best scores."""
        return self["score"] / _PARTS

    def categories(self, most: int) -> list[tuple[str, int]]:
        """How many searches were answered with each of the most frequent categories."""
        return _categories(self._counts).most_common(most)

    def stage(self, name: str) -> StageTimes:
        """How long a stage took; see STAGES."""
        return _times(self._counts, name)


def _last(fingerprint: str) -> str:
    return f"{PREFIX}quality:last:{fingerprint}"


def _parsed(raw: bytes, fingerprint: str) -> ShadowedSearch | None:
    """A search as the checks need it; None: it is of a build with other features."""
    version, recall, n_audited, n_damaged, deviations = json.loads(raw)
    if len(deviations) != len(FEATURES):
        return None
    rest = {"best_score": 0.0, "certain": True, "category": "", "model_s": 0.0, "search_s": 0.0}
    return ShadowedSearch(
        version=version,
        fingerprint=fingerprint,
        recall=recall,
        n_audited=n_audited,
        n_damaged=n_damaged,
        deviations=tuple(deviations),
        **rest,  # type: ignore[arg-type]
    )


def _counted(search: ShadowedSearch) -> dict[str, int]:
    counts = {
        "n": 1,
        "recall": round(search.recall * _PARTS),
        "score": round(search.best_score * _PARTS),
        "unsure": int(not search.certain),
        "audited": search.n_audited,
        "damaged": search.n_damaged,
        f"category:{search.category}": 1,
    }
    for stage, seconds in zip(STAGES, (search.model_s, search.search_s), strict=True):
        counts[f"{stage}:{bisect_left(STAGE_BOUNDS_S, seconds)}"] = 1
        counts[f"{stage}:us"] = round(seconds * 1e6)
    return counts


def _decoded(record: object) -> dict[str, int]:
    raw = cast(Mapping[bytes, bytes], record)
    return {name.decode(): int(value) for name, value in raw.items() if name != b"fingerprint"}


def _figures(counts: Counts) -> QualityFigures:
    n = counts.get("n", 0)

    def mean(name: str, parts: int) -> float | None:
        return round(counts.get(name, 0) / parts / n, 4) if n else None

    return QualityFigures(
        n_searches=n,
        recall_at_10=mean("recall", _PARTS),
        best_score=mean("score", _PARTS),
        not_sure=mean("unsure", 1),
        categories={name: round(count / n, 4) for name, count in _categories(counts).most_common()},
        stages={stage: _stage_figures(_times(counts, stage), n) for stage in STAGES if n},
        rows_audited=counts.get("audited", 0),
        rows_damaged=counts.get("damaged", 0),
    )


def _categories(counts: Counts) -> Counter[str]:
    named = {name.partition(":")[2]: count for name, count in counts.items() if name.startswith("category:")}
    return Counter(named)


def _times(counts: Counts, stage: str) -> StageTimes:
    return StageTimes(
        counts=[counts.get(f"{stage}:{bucket}", 0) for bucket in range(len(STAGE_BOUNDS_S) + 1)],
        sum_s=counts.get(f"{stage}:us", 0) / 1e6,
    )


def _stage_figures(times: StageTimes, n: int) -> StageFigures:
    below = _running(times.counts)
    bucket = next(number for number, count in enumerate(below) if count >= 0.95 * below[-1])
    bound = STAGE_BOUNDS_S[bucket] * 1e3 if bucket < len(STAGE_BOUNDS_S) else None
    return StageFigures(mean_ms=round(times.sum_s * 1e3 / n, 2), p95_ms=bound)


def _running(counts: Iterable[int]) -> list[int]:
    total, sums = 0, []
    for count in counts:
        total += count
        sums.append(total)
    return sums
