"""The contract of duplicates: requests and results of duplicates jobs, and verdicts, stored as JSON."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

GROUPS_A_PAGE = 50
MOST_LISTED = 100  # images, and likewise pairs, of one group: a placeholder may be in thousands of listings


class DuplicateLabel(StrEnum):
    """How two photos are duplicates, the surest first."""

    SAME_BYTES = "same_bytes"  # the files are the same
    SAME_PICTURE = "same_picture"  # resized, recompressed, cropped, mirrored, bordered, watermarked or slightly rotated
    SAME_THING = "same_thing"  # so similar that they probably show the same thing


class Verdict(StrEnum):
    """What somebody has decided of two photos."""

    DUPLICATE = "duplicate"
    NOT_DUPLICATE = "not_duplicate"


class _Contract(BaseModel):
    """As in `shared.jobs.contract`: fields of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DuplicatesRequest(_Contract):
    """Options of a duplicates job; it looks at the live index with its pending changes."""

    since: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="a version of the index: only groups with photos that are not in it",
    )
    same_thing_score: float = Field(
        0.85, ge=0.6, le=1, description="similarity from which other pictures count as `same_thing`; 1: none do"
    )


class DuplicateImage(_Contract):
    """A photo in a group of duplicates."""

    image_id: str
    listing_id: str


class DuplicatePair(_Contract):
    """Two photos of different listings, and what shows that they are duplicates."""

    image_ids: tuple[str, str] = Field(description="sorted")
    label: DuplicateLabel
    score: float = Field(description="cosine similarity of the embeddings, -1..1")
    correlation: float | None = Field(
        description="how alike most parts are once one picture lies over the other, 0..1; null: not the same picture"
    )
    hash_distance: int | None = Field(description="bits of 128 in which the difference hashes differ; null: no hash")
    mirrored: bool = Field(description="the one is the mirror image of the other")
    verdict: Verdict | None = Field(None, description="`duplicate` where somebody has confirmed it")


class DuplicateGroup(_Contract):
    """Photos of different listings that are duplicates of one another, be it through others of the group."""

    label: DuplicateLabel = Field(description="of the least sure pair that holds it together")
    n_images: int
    images: list[DuplicateImage] = Field(description=f"the first {MOST_LISTED}")
    n_pairs: int = Field(description="pairs found; large groups are held together by fewer than all there are")
    pairs: list[DuplicatePair] = Field(description=f"the {MOST_LISTED} surest")


class DuplicatesResult(_Contract):
    """The result of a duplicates job.

    Attributes:
        timings_s: seconds by stage.
    """

    index_version: str
    since: str | None = None
    n_photos: int = Field(description="photos of the live index that were compared")
    n_unreadable: int = Field(description="photos whose files could not be read: compared by bytes and embedding only")
    n_groups: int
    groups_by_label: Mapping[DuplicateLabel, int]
    n_refuted: int = Field(description="pairs left out because of a verdict")
    groups: list[DuplicateGroup] = Field(description=f"the first {GROUPS_A_PAGE}: the surest, and of those the largest")
    next_cursor: str | None = Field(
        None, description="for more groups: `GET /v1/jobs/{id}/duplicates`; null: there are none"
    )
    timings_s: Mapping[str, float] = {}


class DuplicateOf(_Contract):
    """A photo of the live index that a new one duplicates."""

    image_id: str
    listing_id: str
    label: DuplicateLabel
    score: float = Field(description="cosine similarity of the embeddings, -1..1")
    correlation: float | None = Field(None, description="as of a pair of a duplicates job; null: not compared")
    hash_distance: int | None = Field(None, description="bits of 128; null: not compared")
    mirrored: bool = False
