"""Live quality as workers write it and clients read it: shadowed searches, what is checked, the report."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from shared.jobs.view import Timestamp, View

PIXEL_FEATURES = ("bars", "red_over_blue", "green_over_both", "brightness", "contrast")
N_AXES = 16
# What drift is looked for in: the pixels as they came, and how an embedding lies to its neighbours in the index.
FEATURES = (*PIXEL_FEATURES, *(f"embedding_{number}" for number in range(1, N_AXES + 1)))


@dataclass(frozen=True, slots=True)
class ShadowedSearch:
    """One search that was compared with exact search.

    Attributes:
        version: of the index.
        fingerprint: of the model.
        recall: share of the ten exact nearest that the index found; in a large index an estimate, whose mean is right.
        best_score: cosine similarity of the best neighbour.
        certain: whether the category was sure enough.
        category: its name; of a path the root.
        model_s, search_s: seconds until the photo was embedded, and from then to the answer.
        n_audited: rows of the index that were checked for damage.
        n_damaged: of them, those that are not what was written.
        deviations: of each of FEATURES from its mean in the index's traffic reference, in units of its spread; None:
            not known.
    """

    version: str
    fingerprint: str
    recall: float
    best_score: float
    certain: bool
    category: str
    model_s: float
    search_s: float
    n_audited: int
    n_damaged: int
    deviations: tuple[float | None, ...]


class CheckState(StrEnum):
    """What a check found."""

    FINE = "fine"
    ALARM = "alarm"
    UNKNOWN = "unknown"  # too few searches were shadowed, or there is nothing to compare with


class QualityCheck(View):
    """One check of the last shadowed searches."""

    name: str = Field(description="`recall`, `damage` or `drift`")
    state: CheckState
    n_searches: int = Field(description="shadowed searches that it looked at")
    detail: str = Field(description="what was found, and what to do")


class StageFigures(View):
    """How long a stage of the shadowed searches took."""

    mean_ms: float
    p95_ms: float | None = Field(description="the bound of the histogram's bucket that it lies in; null: above all")


class QualityFigures(View):
    """What the shadowed searches of some time were like."""

    n_searches: int
    recall_at_10: float | None = Field(description="share of the ten exact nearest that the index found")
    best_score: float | None = Field(description="mean cosine similarity of the best neighbour")
    not_sure: float | None = Field(description="share whose category was not sure enough")
    categories: dict[str, float] = Field(description="shares of the categories, of paths the roots; largest first")
    stages: dict[str, StageFigures] = Field(description="`model` and `search`")
    rows_audited: int = Field(description="rows of the index that were checked for damage")
    rows_damaged: int


class VersionQuality(View):
    """What the shadowed searches of one version of the index were like."""

    version: str
    fingerprint: str = Field(description="of the model")
    figures: QualityFigures


class DayQuality(View):
    """What the shadowed searches of one day, in UTC, were like."""

    day: str
    figures: QualityFigures


class QualityReport(View):
    """Live quality: a sample of real searches, compared with exact search."""

    since: Timestamp
    until: Timestamp
    live_version: str | None = Field(description="that the checks are of; null: no worker has reported")
    checks: list[QualityCheck]
    drift: dict[str, float] = Field(
        description="how far the last searches lie from the index's reference, by feature, in units of its spread"
    )
    figures: QualityFigures
    versions: list[VersionQuality] = Field(description="newest first")
    days: list[DayQuality] = Field(description="oldest first")
