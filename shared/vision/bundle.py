"""Model bundle: weights + head + categories + preprocessing spec + fingerprint, in one directory.

Reads and writes; knows nothing of torch, so a manifest can be looked at without loading a runtime.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shared.artifacts import MANIFEST, ArtifactStore
from shared.catalogue import CATEGORIES
from shared.errors import BundleDamaged, BundleMissing
from shared.images import PreprocessSpec
from shared.snapshots import bundle_store as bundle_store  # noqa: PLC0414 - whoever opens one asks here

WEIGHTS = "weights.safetensors"
GRAPH = "graph.xml"
SPLIT = "split.json"


class Runtime(StrEnum):
    """What runs a bundle's network."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """What its arithmetic is done in."""

    FLOAT32 = "float32"
    INT8 = "int8"


class Normalisation(BaseModel):
    """Per channel `(pixel / 255 - mean) / std`, done inside the network's graph."""

    model_config = ConfigDict(frozen=True)

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class BundleManifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    weights: str  # where the trunk's weights come from, for people
    weights_sha256: str  # of WEIGHTS in this bundle
    embedding_layer: str = "global average pool, L2-normalised"
    embedding_dim: int
    categories: tuple[str, ...] = CATEGORIES
    preprocess: PreprocessSpec
    normalisation: Normalisation
    runtime: Runtime = Runtime.TORCH
    precision: Precision = Precision.FLOAT32
    graph_sha256: dict[str, str] = {}  # of the runtime's own files, by name
    fingerprint: str = ""
    metrics: dict[str, float | int] = {}
    gate: dict[str, float | str] = {}  # how the chosen precision compares with float32, or why it was not chosen
    catalogue: str  # what the head was fitted on or measured on, for people
    head_came_with_weights: bool = False  # then what it was fitted on is not known
    notice: str | None = None  # what a reader should know before trusting it
    libraries: dict[str, str] = {}
    built_at: str

    def compute_fingerprint(self) -> str:
        """SHA-256 over everything that decides which embedding a photo gets, and nothing else."""
        decisive = {
            "weights_sha256", "backbone", "embedding_layer", "embedding_dim", "categories", "preprocess",
            "normalisation", "runtime", "precision", "graph_sha256",
        }  # fmt: skip
        text = json.dumps(self.model_dump(mode="json", include=decisive), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """One version on disk, verified.

    Attributes:
        held_out: ids of the listings the head has never seen.
        fitted_on: ids of every listing of the catalogue it was fitted on, the held-out ones included.
    """

    version: str
    manifest: BundleManifest
    directory: Path
    held_out: frozenset[str]
    fitted_on: frozenset[str]

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every weight by its name in the network.

        Raises:
            BundleDamaged: the file is not safetensors.
        """
        try:
            return load_file(self.directory / WEIGHTS)
        except (OSError, SafetensorError) as exc:
            raise BundleDamaged(f"{self.version}: {WEIGHTS} cannot be read") from exc


def write_bundle(
    store: ArtifactStore,
    manifest: BundleManifest,
    tensors: dict[str, npt.NDArray[np.generic]],
    *,
    held_out: frozenset[str],
    fitted_on: frozenset[str],
    graph_files: Mapping[str, bytes] | None = None,
) -> str:
    """Write a new version and return its name; it is not promoted.

    Args:
        manifest: `weights_sha256`, `graph_sha256` and `fingerprint` are filled in here.
        tensors: every weight by its name in the network.
        held_out: listings kept away from fitting.
        fitted_on: every listing of the catalogue, the held-out ones included.
        graph_files: what the runtime loads instead of the weights, by name.
    """
    with store.write() as draft:
        directory = draft.directory
        save_file(tensors, directory / WEIGHTS)
        (directory / SPLIT).write_text(json.dumps({"held_out": sorted(held_out), "fitted_on": sorted(fitted_on)}))
        for name, content in (graph_files or {}).items():
            (directory / name).write_bytes(content)
        digests = {name: store.sha256(directory / name) for name in graph_files or {}}
        update = {"weights_sha256": store.sha256(directory / WEIGHTS), "graph_sha256": digests}
        sealed = manifest.model_copy(update=update)
        sealed = sealed.model_copy(update={"fingerprint": sealed.compute_fingerprint()})
        (directory / MANIFEST).write_text(sealed.model_dump_json())
    return draft.version


def read_manifest(store: ArtifactStore, version: str) -> BundleManifest:
    """The manifest of a version, without looking at the weights.

    Raises:
        BundleMissing, BundleDamaged: not there, or not whole.
    """
    raw = store.manifest(version)
    try:
        manifest = BundleManifest.model_validate(raw)
    except ValidationError as exc:
        raise BundleDamaged(f"{version}: {MANIFEST} is not that of a bundle") from exc
    if manifest.fingerprint != manifest.compute_fingerprint():
        raise BundleDamaged(f"{version}: the fingerprint does not belong to what the manifest describes")
    return manifest


def open_bundle(store: ArtifactStore, version: str | None = None) -> ModelBundle:
    """Verify and open a version, by default the current one.

    Raises:
        BundleMissing, BundleDamaged: not there, or not what was written.
    """
    version = version or store.current()
    if version is None:
        raise BundleMissing("no model bundle has been promoted yet; `lookalike index build` makes one")
    store.verify(version)
    directory = store.path(version)
    manifest = read_manifest(store, version)
    try:
        split = json.loads((directory / SPLIT).read_text())
        return ModelBundle(version, manifest, directory, frozenset(split["held_out"]), frozenset(split["fitted_on"]))
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise BundleDamaged(f"{version}: {SPLIT} is not that of a bundle") from exc
