"""Feedback as a table: a row for each result that a search with feedback showed. Written and read as Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from shared.errors import InvalidRequest
from shared.feedback.contract import FeedbackEvent, JobFeedback

_TIMES = {
    "clicked_at": FeedbackEvent.CLICK,
    "right_at": FeedbackEvent.RIGHT,
    "purchased_at": FeedbackEvent.PURCHASE,
}
_MOMENTS = ("searched_at", *_TIMES)
_COLUMNS = {
    **dict.fromkeys(("job_id", "owner", "index_version", "model_fingerprint", "reranker_version"), "string"),
    **dict.fromkeys(("query_image_id", "query_listing_id", "query_text"), "string"),
    **dict.fromkeys(("answered_category", "corrected_category"), "string"),
    "answered_probability": "Float64",
    "position": "Int32",
    **dict.fromkeys(("image_id", "listing_id", "category"), "string"),
    "score": "Float64",
    **dict.fromkeys(_MOMENTS, "Float64"),
}


def feedback_table(found: Sequence[JobFeedback]) -> pd.DataFrame:
    """Make a table of feedback, with the columns that `lookalike feedback export` documents."""
    table = pd.DataFrame([row for one in found for row in _rows(one)], columns=list(_COLUMNS)).astype(_COLUMNS)
    for name in _MOMENTS:
        table[name] = pd.to_datetime(table[name], unit="s", utc=True)
    return table


def read_feedback_files(path: Path) -> pd.DataFrame:
    """Read tables that `lookalike feedback export` has written; a search that is in several is taken from the last.

    Args:
        path: a Parquet file, or a directory with any number of them.

    Raises:
        InvalidRequest: it is not there, or no such table.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InvalidRequest(f"{path}: no .parquet file in it; `lookalike feedback export FILE.parquet` writes one")
    tables = []
    for file in files:
        try:
            table = pd.read_parquet(file)
        except (OSError, ValueError) as exc:
            raise InvalidRequest(f"{file}: cannot be read as Parquet ({exc})") from exc
        if missing := sorted(_COLUMNS.keys() - set(table.columns)):
            raise InvalidRequest(
                f"{file}: no column {', '.join(missing)}; `lookalike feedback export FILE.parquet` writes all of them"
            )
        tables.append(table[list(_COLUMNS)])
    # A later export has more events of the same search. What a file is called does not tell which that is.
    tables.sort(key=_newest)
    joined = pd.concat(tables, ignore_index=True)
    return joined.drop_duplicates(["job_id", "position"], keep="last").reset_index(drop=True)


def _newest(table: pd.DataFrame) -> float:
    """When the last that it tells of came, seconds since the epoch; 0 where it tells of nothing."""
    newest = table[list(_MOMENTS)].max().max()
    return 0.0 if pd.isna(newest) else float(newest.timestamp())


def _rows(one: JobFeedback) -> Iterator[dict[str, Any]]:
    """A row for each result that was shown; one without a result where none was."""
    impression = one.impression
    answered = impression.categories[0] if impression.categories else None
    common = {
        **impression.model_dump(exclude={"image_id", "listing_id", "text", "categories", "shown"}),
        "query_image_id": impression.image_id,
        "query_listing_id": impression.listing_id,
        "query_text": impression.text,
        "answered_category": answered and answered.name,
        "answered_probability": answered and answered.probability,
        "corrected_category": one.category,
    }
    if not impression.shown:
        yield common
    for position, shown in enumerate(impression.shown, start=1):
        done = {column: one.of(event).get(shown.image_id) for column, event in _TIMES.items()}
        yield {**common, "position": position, **shown.model_dump(), **done}
