"""Live quality: what a sample of real searches says of the service's answers."""

from datetime import datetime

from pydantic import Field

from lookalike.models.answer import Answer


class QualityCheck(Answer):
    """One check of the last shadowed searches.

    Attributes:
        name: `recall`, `damage` or `drift`.
        state: `fine`, `alarm` or `unknown`.
        n_searches: that it looked at.
        detail: what was found, and what to do.
    """

    name: str
    state: str
    n_searches: int = 0
    detail: str = ""


class StageFigures(Answer):
    """How long a stage took; `p95_ms` is None above all bounds of the histogram."""

    mean_ms: float
    p95_ms: float | None = None


class QualityFigures(Answer):
    """What the shadowed searches of some time were like.

    Attributes:
        n_searches: how many.
        recall_at_10: share of the ten exact nearest that the index found; None without searches, as the others.
        best_score: mean similarity of the best neighbour.
        not_sure: share whose category was not sure enough.
        categories: shares of the categories, of paths the roots; largest first.
        stages: `model` and `search`.
        rows_audited: rows of the index that were checked for damage.
        rows_damaged: of them.
    """

    n_searches: int
    recall_at_10: float | None = None
    best_score: float | None = None
    not_sure: float | None = None
    categories: dict[str, float] = Field(default_factory=dict)
    stages: dict[str, StageFigures] = Field(default_factory=dict)
    rows_audited: int = 0
    rows_damaged: int = 0


class VersionQuality(Answer):
    """The figures of one version of the index, with the fingerprint of its model."""

    version: str
    fingerprint: str = ""
    figures: QualityFigures


class DayQuality(Answer):
    """The figures of one day, in UTC."""

    day: str
    figures: QualityFigures


class QualityReport(Answer):
    """Live quality: a sample of real searches, compared with exact search.

    Attributes:
        since, until: the time that the figures are of.
        live_version: that the checks are of; None: no worker has reported.
        checks: recall, damage and drift of the last searches.
        drift: how far the last searches lie from the index's reference, by feature, in units of its spread.
        figures: of all searches.
        versions: by version of the index, newest first.
        days: by day, oldest first.
    """

    since: datetime
    until: datetime
    live_version: str | None = None
    checks: list[QualityCheck] = Field(default_factory=list)
    drift: dict[str, float] = Field(default_factory=dict)
    figures: QualityFigures
    versions: list[VersionQuality] = Field(default_factory=list)
    days: list[DayQuality] = Field(default_factory=list)
