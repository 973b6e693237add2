"""Draw all plots of a bundle into one directory, with an HTML page that shows them."""

import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from pipeline.building.embed import EmbeddedPhotos
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.plots import (
    SimilarPhoto,
    draw_abstention,
    draw_categories,
    draw_confusion,
    draw_history,
    draw_map,
    draw_reliability,
    draw_similar,
    write_page,
)
from shared.errors import CatalogueUnusable
from shared.model.bundle import HISTORY, ModelBundle
from shared.photos.images import PreprocessSpec, decode_photo

PAGE = "index.html"

_N_QUERIES = 4
_N_SIMILAR = 7  # with the query, two rows of four
_N_ON_MAP = 1500  # t-SNE of as many takes about ten seconds
_MIN_ON_MAP = 10
_THUMBNAIL = PreprocessSpec(size_px=224, fill=255)


def draw_bundle(
    bundle: ModelBundle, evaluation: Evaluation, out: Path, embedded: EmbeddedPhotos | None = None
) -> list[str]:
    """Draw training history, classification and retrieval of a bundle, as far as they are known.

    Args:
        bundle: with or without a training history.
        evaluation: of the bundle.
        out: a directory, made if it is missing; pictures of an earlier call are replaced.
        embedded: a catalogue's photos with their embeddings by the bundle, for queries and the map.

    Returns:
        names of the files, the page last.

    Raises:
        CatalogueUnusable: there is nothing to draw.
    """
    out.mkdir(parents=True, exist_ok=True)
    manifest = bundle.manifest
    title = f"{bundle.version} · {manifest.backbone} · {manifest.recipe}"
    pictures: list[tuple[str, str]] = []

    def next_picture(name: str, about: str) -> Path:
        pictures.append((f"{name}.png", about))
        return out / f"{name}.png"

    if (history := bundle.directory / HISTORY).is_file():
        path = next_picture("history", "Loss and accuracy, epoch by epoch")
        draw_history(json.loads(history.read_bytes()), path, title=title)
    if found := evaluation.classification:
        draw_confusion(found, next_picture("confusion", "What photos of each category are answered"), title=title)
        draw_categories(found, next_picture("categories", "Precision and recall of each category"), title=title)
        path = next_picture("reliability", "How often answers of one probability are right")
        draw_reliability(found, path, title=title, temperature=evaluation.temperature)
        path = next_picture("abstention", "Accuracy when only the surest photos are answered")
        draw_abstention(found, path, title=title, abstain_below=manifest.abstain_below)
    if embedded is not None:
        photos, labels = embedded.photos, np.array([photo.category for photo in embedded.photos])
        for i, query in enumerate(_queries(bundle, embedded), 1):
            path = next_picture(
                f"similar-{i}", f"A photo of {manifest.categories[labels[query]]} and those most similar to it"
            )
            draw_similar(_similar(embedded, query, manifest.categories), path, title=title)
        if len(photos) >= _MIN_ON_MAP:
            some = np.random.default_rng(17).permutation(len(photos))[:_N_ON_MAP]
            path = next_picture("map", "The catalogue in the plane, similar photos near each other")
            draw_map(embedded.embeddings.vectors[some], labels[some], manifest.categories, path, title=title)
    if not pictures:
        raise CatalogueUnusable(f"nothing of {bundle.version} can be drawn: {'; '.join(evaluation.notes)}")
    write_page(pictures, out / PAGE, title=title)
    return [name for name, _ in pictures] + [PAGE]


def _queries(bundle: ModelBundle, embedded: EmbeddedPhotos) -> list[int]:
    """Rows of some unseen photos, chosen by a hash of their ids so that every bundle gets the same queries."""
    seen = bundle.split.train | bundle.split.validation
    unseen = [row for row, photo in enumerate(embedded.photos) if photo.listing_id not in seen]
    return sorted(unseen, key=lambda row: crc32(embedded.photos[row].image_id.encode()))[:_N_QUERIES]


def _similar(embedded: EmbeddedPhotos, query: int, categories: Sequence[str]) -> list[SimilarPhoto]:
    photos, vectors = embedded.photos, embedded.embeddings.vectors
    scores = vectors @ vectors[query]  # (n,)
    others = [row for row in np.argsort(-scores, kind="stable").tolist() if row != query][:_N_SIMILAR]
    return [
        SimilarPhoto(
            decode_photo(photos[row].path.read_bytes(), _THUMBNAIL),
            categories[photos[row].category],
            None if row == query else float(scores[row]),
            same_category=photos[row].category == photos[query].category,
            same_listing=row != query and photos[row].listing_id == photos[query].listing_id,
        )
        for row in [query, *others]
    ]
