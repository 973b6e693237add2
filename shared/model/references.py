"""Reference photos: drawn pixels, and the embeddings that a bundle's model gave for them where the bundle was built.

An index is searched with vectors of the same model, so a machine on which the model gives other ones must not serve it.
Processors differ most in int8: without VNNI, sums of two products saturate at 16 bits if weights use all eight.
"""

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.array_types import FloatArray
from shared.errors import BundleDamaged, EmbeddingsDiffer
from shared.exhaustion import raise_exhaustion
from shared.model.bundle import REFERENCES, BundleManifest, ModelBundle, Precision, References
from shared.model.embedder import Embedder
from shared.photos.images import Pixels

DRAWING: Final = "leaves-1"  # another name for every change that changes a pixel
N_PHOTOS = 8

# Least cosine to the expected embeddings: mean of the photos, and each of them. bfloat16 rounds what a library keeps in
# memory, which differs with how it fuses operations: Lite0 against float32 has 0.995 in the mean and 0.988 at least.
# float16 has 0.99999 and 0.9999.
BOUNDS: Final = {
    Precision.FLOAT32: (0.999, 0.995),
    Precision.INT8: (0.999, 0.995),
    Precision.FLOAT16: (0.999, 0.995),
    Precision.BFLOAT16: (0.98, 0.95),
}

UNVERIFIED = (
    "The model was built without reference photos, so it is not known whether it gives the same embeddings on every "
    "processor; int8 may not. Train it again: `lookalike train`."
)

_N_LEAVES = 120
_UNITS = 1 << 16  # side of a photo in the units that leaves are drawn in, whatever its size in pixels


def reference_pixels(size_px: int) -> Pixels:
    """Draw the reference photos, the same to the bit on every machine: integers only, from a hash as random source.

    Ellipses of many sizes that hide one another ("dead leaves") have flat areas and edges at all scales, as photos of
    products do. Lite0 in int8 with weights of eight bits, on AVX2 against VNNI: mean cosine 0.986 for these photos and
    0.985 for 500 real ones. Leaves with grain on top, clouds and noise tell processors apart less well.

    Args:
        size_px: side of the photos.

    Returns:
        (N_PHOTOS, size_px, size_px, 3) uint8.
    """
    return np.stack([_draw(number, size_px) for number in range(N_PHOTOS)])


@lru_cache(N_PHOTOS)  # whoever builds a model needs them several times; 1.2 MB
def _draw(number: int, size_px: int) -> Pixels:
    leaves = _random(f"{DRAWING}/{number}", _N_LEAVES * 8).reshape(_N_LEAVES, 8)
    at = np.arange(size_px, dtype=np.int64) * _UNITS // size_px
    canvas = np.empty((size_px, size_px, 3), dtype=np.int64)
    canvas[:] = leaves[0, 5:] >> 8
    for x, y, size, shape, slope, *colour in leaves.tolist():
        radius = min(1500 + 1200 * _UNITS // (size + 2500), _UNITS // 2)  # few are large, many are small
        wide = 128 + (shape >> 8)  # of 256
        columns = slice(*np.searchsorted(at, [x - 2 * radius, x + 2 * radius]))
        rows = slice(*np.searchsorted(at, [y - 2 * radius, y + 2 * radius]))
        dx, dy = at[columns] - x, at[rows, None] - y
        inside = dx * dx * wide // 256 + dy * dy * 256 // wide <= radius * radius
        shaded = (dx * ((slope >> 8) - 128) // _UNITS)[None, :, None] + (np.array(colour) >> 8)
        np.copyto(canvas[rows, columns], shaded, where=inside[..., None])
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _random(name: str, n: int) -> npt.NDArray[np.int64]:
    """Numbers below 65,536, which do not change with a version of numpy."""
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * n), dtype="<u2").astype(np.int64)


def references_file(vectors: FloatArray) -> tuple[References, bytes]:
    """Make the bundle's file of expected embeddings.

    Args:
        vectors: (N_PHOTOS, dim) of `reference_pixels`, L2 norm 1, by the model as it is served.

    Returns:
        the manifest's entry, and the content of REFERENCES.
    """
    content = save({"vectors": vectors.astype(np.float16)})
    return References(drawing=DRAWING, sha256=hashlib.sha256(content).hexdigest()), content


def notice_of(manifest: BundleManifest) -> str | None:
    """Return what users of a model have to know: the bundle's notice, or that an int8 model cannot be verified."""
    unverified = manifest.precision is Precision.INT8 and not has_references(manifest)
    return " ".join(filter(None, (manifest.notice, UNVERIFIED if unverified else None))) or None


def verify_embeddings(bundle: ModelBundle, embedder: Embedder) -> None:
    """Embed the reference photos and compare with what was expected; a bundle without any passes.

    Args:
        bundle: that was loaded.
        embedder: of the bundle, on this machine.

    Raises:
        EmbeddingsDiffer: the embeddings are not those of the machine that the bundle was built on.
        BundleDamaged: the expected embeddings cannot be read.
    """
    if not has_references(bundle.manifest):
        return
    expected = _expected(bundle)
    vectors, _ = embedder.embed(reference_pixels(bundle.manifest.preprocess.size_px))
    cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
    mean, least = float(cosines.mean()), float(cosines.min())
    min_mean, min_each = BOUNDS[bundle.manifest.precision]
    if not (mean >= min_mean and least >= min_each):  # also where they are not numbers
        raise EmbeddingsDiffer(
            f"{EmbeddingsDiffer.code}: {bundle.version} gives other embeddings on {embedder.device} "
            f"({embedder.library}) than where it was built: cosine {mean:.4f} in the mean of {len(cosines)} reference "
            f"photos (at least {min_mean} is wanted), {least:.4f} at least (wanted: {min_each}); "
            "build it again with LOOKALIKE_PRECISION=float32: `lookalike train`, or `lookalike index build` here"
        )


def has_references(manifest: BundleManifest) -> bool:
    """Tell whether a bundle has reference photos that this version of Lookalike can draw."""
    return manifest.references is not None and manifest.references.drawing == DRAWING


def _expected(bundle: ModelBundle) -> FloatArray:
    """(N_PHOTOS, dim) float32."""
    try:
        vectors: FloatArray = load((bundle.directory / REFERENCES).read_bytes())["vectors"].astype(np.float32)
    except (OSError, SafetensorError, KeyError) as exc:
        raise_exhaustion(exc)
        raise BundleDamaged(f"{bundle.version}: {REFERENCES} cannot be read") from exc
    if vectors.shape != (N_PHOTOS, bundle.manifest.embedding_dim):
        raise BundleDamaged(f"{bundle.version}: {REFERENCES} is of another model")
    return vectors
