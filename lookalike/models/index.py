"""The index: its versions, the model they were built with, and what a reindex did."""

from datetime import datetime
from typing import Any

from pydantic import Field

from lookalike.models.answer import Answer
from lookalike.models.results import FacetValue


class ReindexCounts(Answer):
    """How many photos a reindex found, embedded and left out.

    Attributes:
        seen: photos in the catalogue and among the pending changes.
        unchanged: as in the live version.
        new: not in the live version.
        changed: with other pixels.
        relabelled: the same photo with another listing or category.
        removed: in the live version and no longer in the catalogue.
        embedded: passed through the model.
        failed: unusable, so not in the new version.
    """

    seen: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    relabelled: int = 0
    removed: int = 0
    embedded: int = 0
    failed: int = 0


class Gate(Answer):
    """One quality gate: a condition that a new version must meet to be promoted; `detail` gives the figures."""

    name: str
    passed: bool
    detail: str


class SnapshotQuality(Answer):
    """How well a version finds things, measured on a sample of its own photos. Shares are 0 to 1.

    Attributes:
        count: photos in the version.
        sampled: photos of the sample.
        precision_at_4: share of the four nearest photos of other listings that have the query's category.
        sibling_recall_at_4: share of photos whose four nearest include another photo of their own listing.
        recall_at_10: share of the true ten nearest neighbours that a search finds.
        self_retrieval: share of photos that find themselves first.
    """

    count: int
    sampled: int
    precision_at_4: float | None = None
    sibling_recall_at_4: float | None = None
    recall_at_10: float | None = None
    self_retrieval: float | None = None


class ReindexReport(Answer):
    """A new version of the index compared with the one that was live when it was built.

    Attributes:
        mode: `changed` or `all`: which photos were embedded.
        counts: photos by what was done with them.
        reasons: rows and photos left out, counted by reason.
        new: quality of the new version.
        live: quality of the live version; None if there was none to compare with.
        live_version: the live version; None if there was none.
        gates: the conditions of promotion.
        timings_s: seconds, by stage.
    """

    mode: str
    counts: ReindexCounts
    reasons: dict[str, int] = Field(default_factory=dict)
    new: SnapshotQuality
    live: SnapshotQuality | None = None
    live_version: str | None = None
    gates: list[Gate] = Field(default_factory=list)
    timings_s: dict[str, float] = Field(default_factory=dict)


class ReindexResult(Answer):
    """What a reindex did.

    Attributes:
        mode: `changed` or `all`: which photos were embedded.
        dry_run: true if nothing was built.
        counts: photos by what was done with them, or would be in a dry run.
        reasons: rows and photos left out, counted by reason.
        index_version: the version it built; None if nothing had changed, and in a dry run.
        live_version: the version that was live when it began.
        promoted: whether the new version was made live.
        decision: why it was promoted or not.
        report: the comparison with the live version; None where nothing was built.
        timings_s: seconds, by stage.
    """

    mode: str
    dry_run: bool = False
    counts: ReindexCounts
    reasons: dict[str, int] = Field(default_factory=dict)
    index_version: str | None = None
    live_version: str | None = None
    promoted: bool = False
    decision: str = ""
    report: ReindexReport | None = None
    timings_s: dict[str, float] = Field(default_factory=dict)


class Attribute(Answer):
    """An attribute of the catalogue's listings.

    Attributes:
        name: in answers, in `include` and in filters.
        type: number, price, text, keyword, place, time or boolean.
        column: of the catalogue's table.
        currencies: of a price: codes in order of frequency.
        decimal: what stands before the fraction of its numbers in the table.
        day_first: whether 3/4/2026 in the table is in April.
        unit: of numbers, such as "km", where the table has it behind them.
        n_listings: that have a value.
        quantiles: of numbers, prices and times (seconds since the epoch): 21 values from the lowest to the highest.
        values: of keywords, places and booleans: the most frequent.
        n_values: how many different ones there are.
    """

    name: str
    type: str
    column: str = ""
    currencies: list[str] = Field(default_factory=list)
    decimal: str = "."
    day_first: bool = True
    unit: str = ""
    n_listings: int = 0
    quantiles: list[float] = Field(default_factory=list)
    values: list[FacetValue] = Field(default_factory=list)
    n_values: int = 0


class IndexInfo(Answer):
    """The index that searches use, and the model it was built with.

    Attributes:
        version: version of the index.
        count: photos in it.
        changed: photos put or deleted since it was built; searches see them.
        dimension: length of the embeddings.
        built_at: when it was built, ISO 8601.
        catalogue: the catalogue it was built from.
        backbone: the network that makes the embeddings; `weights` says which weights it has.
        model_fingerprint: identifies weights, preprocessing and runtime.
        model_version: version of the model bundle.
        metrics: quality of the model, measured on `metrics_catalogue` when it was trained.
        recipe: how the model was trained.
        runtime: what runs the model; `precision` is that of its weights.
        preprocess: how photos are made square for the model.
        temperature: scores divided by it are calibrated.
        abstain_below: a category with a lower probability is not `certain`.
        words: attributes that are a listing's words; none: searches take no `text`.
        text_weight: of the words beside a photo, 0 to 1, where a search says none; None: searches take no `text`.
        categories: that the model tells apart, in the order of an embedding's `scores`.
        attributes: of the listings, which searches include, filter and count by.
        notice: what users of the model have to know, if anything.
    """

    version: str
    count: int
    changed: int = 0
    dimension: int
    built_at: str
    catalogue: str
    backbone: str
    weights: str
    model_fingerprint: str
    model_version: str
    metrics: dict[str, float] = Field(default_factory=dict)
    metrics_catalogue: str = ""
    recipe: str = ""
    runtime: str = ""
    precision: str = ""
    preprocess: dict[str, Any] = Field(default_factory=dict)
    temperature: float = 1.0
    abstain_below: float = 0.0
    words: list[str] = Field(default_factory=list)
    text_weight: float | None = None
    categories: list[str] = Field(default_factory=list)
    attributes: list[Attribute] = Field(default_factory=list)
    notice: str | None = None


class ReportSummary(Answer):
    """The report of a reindex in short: counts, quality of the new version, names of the gates it did not pass."""

    mode: str
    counts: ReindexCounts
    quality: SnapshotQuality
    gates_failed: list[str] = Field(default_factory=list)


class Version(Answer):
    """One version of the index.

    Attributes:
        version: its name.
        live: whether searches use it.
        promoted_at: when it was made live last; None if it never was, or that is no longer known.
        bytes: size on disk.
        problem: why it cannot be used; None if it can.
        built_at: when it was built, ISO 8601.
        count: photos in it.
        catalogue: the catalogue it was built from.
        model_fingerprint: identifies the model it was built with.
        report: None if no reindex built it.
    """

    version: str
    live: bool
    promoted_at: datetime | None = None
    bytes: int = 0
    problem: str | None = None
    built_at: str | None = None
    count: int | None = None
    catalogue: str | None = None
    model_fingerprint: str | None = None
    report: ReportSummary | None = None


class VersionList(Answer):
    """The versions of the index, newest first."""

    versions: list[Version]


class VersionReport(Answer):
    """A version and the whole report of the reindex that built it; `report` is None if no reindex did."""

    version: Version
    report: ReindexReport | None = None
