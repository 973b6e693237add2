"""Duplicates: groups of photos of different listings, and what shows that they are duplicates."""

from pydantic import Field

from lookalike.models.answer import Answer


class DuplicateImage(Answer):
    """A photo in a group of duplicates."""

    image_id: str
    listing_id: str


class DuplicatePair(Answer):
    """Two photos of different listings that are duplicates, and the evidence.

    Attributes:
        image_ids: sorted.
        label: `same_bytes`, `same_picture` (resized, recompressed, cropped, mirrored, bordered, watermarked or slightly
            rotated) or `same_thing` (another picture that is very similar).
        score: cosine similarity of the embeddings, -1 to 1.
        correlation: how alike the pictures are once one lies over the other; None if they are not the same picture.
        hash_distance: bits of 128 in which their difference hashes differ; None if they are not the same picture.
        mirrored: the one is the mirror image of the other.
        verdict: `duplicate` if somebody has confirmed it.
    """

    image_ids: tuple[str, str]
    label: str
    score: float
    correlation: float | None = None
    hash_distance: int | None = None
    mirrored: bool = False
    verdict: str | None = None


class DuplicateGroup(Answer):
    """Photos of different listings that are duplicates of one another, be it through others of the group.

    Attributes:
        label: of the least sure pair.
        n_images: photos in the group.
        images: the first hundred of them.
        n_pairs: pairs that were found; large groups are held together by fewer than there are.
        pairs: the hundred surest.
    """

    label: str
    n_images: int
    images: list[DuplicateImage]
    n_pairs: int
    pairs: list[DuplicatePair]


class DuplicatesResult(Answer):
    """What a duplicates job found.

    Attributes:
        index_version: the version of the index that was looked at, with its pending changes.
        since: the version whose photos were not looked for; None: all were.
        n_photos: photos that were compared.
        n_unreadable: photos whose files could not be read; they were compared by bytes and embedding only.
        n_groups: groups that were found.
        groups_by_label: how many of each label.
        n_refuted: pairs left out because of a verdict.
        groups: the surest first, and of those the largest: all of them from `client.duplicates`, the first page from
            `Job.wait`.
        next_cursor: for the next groups; None: there are no more.
        timings_s: seconds by stage.
    """

    index_version: str
    since: str | None = None
    n_photos: int
    n_unreadable: int = 0
    n_groups: int
    groups_by_label: dict[str, int] = Field(default_factory=dict)
    n_refuted: int = 0
    groups: list[DuplicateGroup]
    next_cursor: str | None = None
    timings_s: dict[str, float] = Field(default_factory=dict)


class DuplicatesPage(Answer):
    """One page of groups; `next_cursor` is None on the last one."""

    groups: list[DuplicateGroup]
    next_cursor: str | None = None


class VerdictGiven(Answer):
    """A verdict that was stored, for every two of some photos."""

    image_ids: list[str]
    verdict: str | None
    n_pairs: int


class DuplicateOf(Answer):
    """A photo of another listing that a photo duplicates which was put.

    Attributes:
        image_id, listing_id: of the photo in the index.
        label, score, correlation, hash_distance, mirrored: as of a `DuplicatePair`.
    """

    image_id: str
    listing_id: str
    label: str
    score: float
    correlation: float | None = None
    hash_distance: int | None = None
    mirrored: bool = False
