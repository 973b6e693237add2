"""Report on a cleaned dump: report.json for programs, overview.html for people."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path

import jinja2
import pandas as pd

from pipeline.cleaning.images import NEAR_BITS, NearDuplicate
from shared.attributes.schema import NUMERIC, Attribute, AttributeType, Values, of_payload
from shared.attributes.values import number_of
from shared.catalogue.rows import RowProblem
from shared.catalogue.tables import Catalogue
from shared.photos.images import open_photo, thumbnail

_N_EXAMPLES = 20
_N_PAIRS = 12
_N_VALUES = 10
_SHOWN_CHARS = 80
_DETAIL_CHARS = 240
_THUMBNAIL_PX = 160
_SIDES_PX = (128, 224, 256, 384, 512, 768, 1024, 2048, 4096)
_PRICES_GBP = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)


@dataclass(frozen=True)
class Problem:
    """Count of rows with one problem, and up to 20 of them as examples."""

    count: int
    examples: list[RowProblem]


@dataclass(frozen=True)
class ColumnSummary:
    """What a column of the table was read as.

    Attributes:
        name: of the attribute.
        column: of the table.
        type: of its values.
        currencies: of a price, the most frequent first.
        decimal: of a number or price: what stands before the fraction.
        listings: with photos that have a value.
        lowest, highest: of numbers, prices and times (seconds since the epoch).
        values: of others but texts: the most frequent, with the number of listings.
    """

    name: str
    column: str
    type: str
    currencies: tuple[str, ...]
    decimal: str
    listings: int
    lowest: float | None
    highest: float | None
    values: dict[str, int]


@dataclass(frozen=True)
class Report:
    """A cleaned catalogue in figures.

    Attributes:
        catalogue: its name.
        digest: of the catalogue's usable photos.
        listings: those with an id and a known category, whether or not they have photos.
        near_duplicate_bits: up to here two dHashes count as those of one picture.
        left_out: rows that are not used, by reason.
        odd: rows that are used although something about them is wrong, by reason.
        attributes: what the table's further columns were read as.
    """

    catalogue: str
    digest: str
    listings: int
    listings_with_photos: int
    photos: int
    photos_per_category: dict[str, int]
    photos_per_longer_side_px: dict[str, int]
    listings_per_price_gbp: dict[str, int]
    near_duplicate_bits: int
    near_duplicate_pairs: int
    near_duplicate_pairs_of_one_file: int
    near_duplicate_photos: int
    left_out: dict[str, Problem]
    odd: dict[str, Problem]
    attributes: list[ColumnSummary]

    def to_json(self) -> str:
        """The content of report.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def report(
    catalogue: Catalogue, table: pd.DataFrame, pairs: Sequence[NearDuplicate], odd: Sequence[RowProblem]
) -> Report:
    """Count what is in a catalogue.

    Args:
        table: its photos, see `PHOTOS` in tables.py.
        pairs: near duplicates.
        odd: problems of rows that are used.
    """
    per_category = Counter(table["category"])
    listings = table.drop_duplicates("product_id")
    return Report(
        catalogue=catalogue.name,
        digest=catalogue.digest,
        listings=catalogue.n_listings,
        listings_with_photos=len(listings),
        photos=len(table),
        photos_per_category={name: per_category[name] for name in catalogue.categories},
        photos_per_longer_side_px=_histogram(table[["width", "height"]].max(axis=1), _SIDES_PX),
        listings_per_price_gbp=_histogram(listings["price_gbp"], _PRICES_GBP),
        near_duplicate_bits=NEAR_BITS,
        near_duplicate_pairs=len(pairs),
        near_duplicate_pairs_of_one_file=sum(pair.same_file for pair in pairs),
        near_duplicate_photos=len({image_id for pair in pairs for image_id in (pair.image_a, pair.image_b)}),
        left_out=_by_reason(catalogue.rejected),
        odd=_by_reason(odd),
        attributes=_summaries(catalogue),
    )


def _summaries(catalogue: Catalogue) -> list[ColumnSummary]:
    payloads = {photo.listing_id: photo.payload for photo in catalogue.photos}
    listings = [of_payload(payload) for payload in payloads.values()]
    return [_summary(attribute, listings) for attribute in catalogue.attributes]


def _summary(attribute: Attribute, listings: Sequence[Values]) -> ColumnSummary:
    n_filled = sum(attribute.name in values for values in listings)
    numbers: list[float] = []
    counts: Counter[str] = Counter()
    if attribute.type in NUMERIC:
        numbers = [number for values in listings if (number := number_of(attribute, values)) is not None]
    elif attribute.type is not AttributeType.TEXT:
        counts.update(str(values[attribute.name]) for values in listings if attribute.name in values)
    return ColumnSummary(
        name=attribute.name,
        column=attribute.column,
        type=attribute.type.value,
        currencies=attribute.currencies,
        decimal=attribute.decimal if attribute.type in (AttributeType.NUMBER, AttributeType.PRICE) else "",
        listings=n_filled,
        lowest=min(numbers, default=None),
        highest=max(numbers, default=None),
        values={value[:_SHOWN_CHARS]: count for value, count in counts.most_common(_N_VALUES)},
    )


def _histogram(values: "pd.Series[float]", edges: Sequence[int]) -> dict[str, int]:
    between = [f"{low} to under {high}" for low, high in pairwise(edges)]
    names = [f"under {edges[0]}", *between, f"{edges[-1]} and more"]
    counts = Counter(pd.Index(edges).searchsorted(values.dropna(), side="right").tolist())
    unknown = {"unknown": n} if (n := int(values.isna().sum())) else {}
    return {name: counts[i] for i, name in enumerate(names)} | unknown


def _by_reason(problems: Iterable[RowProblem]) -> dict[str, Problem]:
    rows: dict[str, list[RowProblem]] = {}
    for problem in problems:
        shown = replace(problem, value=problem.value[:_SHOWN_CHARS], detail=problem.detail[:_DETAIL_CHARS])
        rows.setdefault(problem.reason, []).append(shown)
    return {reason: Problem(len(rows[reason]), rows[reason][:_N_EXAMPLES]) for reason in sorted(rows)}


def overview(found: Report, pairs: Sequence[NearDuplicate], copy_of: Mapping[str, Path]) -> str:
    """Render the report as one HTML page, with some pairs of near duplicates inlined as thumbnails.

    Args:
        copy_of: path of the working copy, by image id.
    """
    templates = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    page = jinja2.Environment(loader=templates, autoescape=True, undefined=jinja2.StrictUndefined)
    page.filters["day"] = lambda seconds: datetime.fromtimestamp(seconds, UTC).date().isoformat()
    shown = [
        (pair, *(_inline(copy_of[image_id]) for image_id in pair[:2]))
        for pair in islice(_least_alike_first(pairs), _N_PAIRS)
    ]
    return page.get_template("overview.html").render(report=found, pairs=shown)


def _least_alike_first(pairs: Sequence[NearDuplicate]) -> Iterator[NearDuplicate]:
    """Pairs by falling distance, where a threshold that is too high shows first; each listing at most once."""
    seen: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: -pair.distance):
        if not seen & {pair.listing_a, pair.listing_b}:
            seen |= {pair.listing_a, pair.listing_b}
            yield pair


def _inline(copy: Path) -> str:
    return "data:image/jpeg;base64," + b64encode(thumbnail(open_photo(copy.read_bytes()), _THUMBNAIL_PX)).decode()
