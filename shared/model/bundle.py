"""Model bundle: weights, head, categories, preprocessing spec and fingerprint of a model, in one directory.

This module reads and writes bundles without torch or OpenVINO, so that a manifest is read without loading a runtime.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shared.artifacts import Location
from shared.artifacts.snapshots import bundle_store as bundle_store  # noqa: PLC0414 - re-exported beside open_bundle
from shared.artifacts.store import MANIFEST, ArtifactStore, unwritable
from shared.catalogue.categories import CATEGORIES, MOST_CATEGORIES
from shared.errors import ArtifactUnwritable, BundleDamaged, BundleMissing
from shared.exhaustion import raise_exhaustion
from shared.model.fusion import Fusion
from shared.model.matching import Matching
from shared.photos.images import PreprocessSpec
from shared.text.encoder import TEXT, TextEncoder, TextFacts
from shared.text.sentences import SENTENCE_FILES, SentenceEncoder

WEIGHTS = "weights.safetensors"
GRAPH = "graph.xml"
SPLIT = "split.json"
HISTORY = "history.json"  # one object for each epoch of training
TRAINING = "training.json"  # configuration and decisions of the training run
POOLED = "global average pool, L2-normalised"
PROJECTED = "projection of several levels' pools, with the head's probabilities, L2-normalised"
REFERENCES = "references.safetensors"  # embeddings of the reference photos


class Runtime(StrEnum):
    """The library that runs a bundle's network."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Number format of the network's arithmetic."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # products only; torch on a GPU
    BFLOAT16 = "bfloat16"  # likewise, of a wider range and 8 bits less precise
    INT8 = "int8"


class Normalisation(BaseModel):
    """Input normalisation per channel, `(pixel / 255 - mean) / std`, done inside the network's graph."""

    model_config = ConfigDict(frozen=True)

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Split(BaseModel):
    """The listings a bundle's head was trained, selected and tested on; near duplicates are in the same part.

    All parts are empty if the bundle came with a head: its training data is not known then.

    Attributes:
        train: ids of the listings it was fitted on.
        validation: ids of those that hyperparameters were selected on.
        test: ids of those that its metrics were measured on.
    """

    model_config = ConfigDict(frozen=True)

    train: frozenset[str] = frozenset()
    validation: frozenset[str] = frozenset()
    test: frozenset[str] = frozenset()

    @property
    def listings(self) -> frozenset[str]:
        """Every listing of the catalogue that was split."""
        return self.train | self.validation | self.test


class References(BaseModel):
    """The embeddings that the model gave for the reference photos; see `shared.model.references`.

    Attributes:
        drawing: name of the way the photos are drawn.
        sha256: of REFERENCES.
    """

    model_config = ConfigDict(frozen=True)

    drawing: str
    sha256: str


class BundleManifest(BaseModel):
    """The manifest of a bundle: which model it is, how it was made and how good it is."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    weights: str  # origin of the trunk's weights, for people
    weights_sha256: str  # of WEIGHTS in this bundle
    embedding_layer: str = POOLED
    embedding_dim: int
    categories: tuple[str, ...] = CATEGORIES
    preprocess: PreprocessSpec
    normalisation: Normalisation
    runtime: Runtime = Runtime.TORCH
    precision: Precision = Precision.FLOAT32
    graph_sha256: dict[str, str] = {}  # of the runtime's graph files, by name
    fingerprint: str = ""
    references: References | None = None  # None: made before there were any
    recipe: str = "head"  # training recipe
    # softmax(scores / temperature) is calibrated: the probability that the answer is right.
    temperature: float = Field(1.0, gt=0)
    abstain_below: float = Field(0.0, ge=0, le=1)  # a category of lower probability is not `certain`
    # Of each level above the categories, the root's first: where the category is not certain, a path cut there may be.
    abstain_below_by_level: tuple[float, ...] = ()
    fusion: Fusion | None = None  # None: answers go by the head alone
    text: TextFacts | None = None  # None: it knows no words
    matching: Matching | None = None  # None: searches do not tell whether they found the same thing
    matching_by_doubt: Matching | None = None  # instead, where there is one; earlier builds know that above alone
    metrics: dict[str, float | int] = {}
    gate: dict[str, float | str] = {}  # how the chosen precision compares with float32, or why it was not chosen
    catalogue: str  # what the head was fitted on or measured on, for people
    head_came_with_weights: bool = False  # true: the head's training data is not known
    notice: str | None = None  # a warning for people who use the model
    libraries: dict[str, str] = {}
    built_at: str

    @property
    def matches(self) -> Matching | None:
        """The calibration of matches that searches answer by."""
        return self.matching_by_doubt or self.matching

    def compute_fingerprint(self) -> str:
        """Compute the model's fingerprint: SHA-256, hexadecimal, over every field that affects embeddings or scores."""
        decisive: set[str] = {
            "weights_sha256", "backbone", "embedding_layer", "embedding_dim", "categories", "preprocess",
            "normalisation", "runtime", "precision", "graph_sha256",
        }  # fmt: skip
        if self.text is not None:  # a bundle without words has the fingerprint that it had before there were any
            decisive.add("text")
        text = json.dumps(self.model_dump(mode="json", include=decisive), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """One verified bundle on disk; `open_bundle` returns one.

    Attributes:
        version: name in the artifact store, or of the directory.
        manifest: what the model is.
        directory: with its files.
        split: the listings it was trained, selected and tested on.
    """

    version: str
    manifest: BundleManifest
    directory: Path
    split: Split

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Load every weight, by its name in the network.

        Raises:
            BundleDamaged: the file is missing or not safetensors.
        """
        try:
            return load_file(self.directory / WEIGHTS)
        except (OSError, SafetensorError) as exc:
            raise_exhaustion(exc)
            raise BundleDamaged(f"{self.version}: {WEIGHTS} cannot be read") from exc

    def text_encoder(self) -> TextEncoder | None:
        """Load the encoder of words; None if the model knows none.

        Raises:
            BundleDamaged: a file is missing or does not fit the manifest, or a sentence encoder's library is missing.
        """
        facts = self.manifest.text
        if facts is None:
            return None
        try:
            sentences = None
            if facts.sentences:
                files = {name: (self.directory / name).read_bytes() for name in SENTENCE_FILES}
                sentences = SentenceEncoder(facts.sentences, files)
            encoder = TextEncoder(facts, load_file(self.directory / TEXT), sentences)
        except (OSError, SafetensorError) as exc:
            raise_exhaustion(exc)
            raise BundleDamaged(f"{self.version}: {TEXT} cannot be read") from exc
        if encoder.to_photo.shape[1] != self.manifest.embedding_dim:
            raise BundleDamaged(f"{self.version}: {TEXT} is of another model")
        return encoder


def write_bundle(
    store: ArtifactStore,
    manifest: BundleManifest,
    tensors: dict[str, npt.NDArray[np.generic]],
    *,
    split: Split,
    graph_files: Mapping[str, bytes] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> str:
    """Write a new version of the bundle; it is not promoted.

    Args:
        store: of the bundles.
        manifest: `weights_sha256`, `graph_sha256` and `fingerprint` are filled in here.
        tensors: every weight by its name in the network.
        split: the listings it was trained, selected and tested on.
        graph_files: files that the runtime loads instead of the weights, by name.
        extra_files: reference embeddings and records for people, by name; not part of the fingerprint.

    Returns:
        the new version's name.

    Raises:
        BundleDamaged: a weight is not a finite number.
        ArtifactUnwritable: the disk is full or may not be written.
    """
    _require_finite("the new bundle", tensors)
    with store.write() as draft:
        directory = draft.directory
        save_file(tensors, directory / WEIGHTS)
        sides = {side: sorted(listings) for side, listings in split.model_dump().items()}
        (directory / SPLIT).write_text(json.dumps(sides))
        for name, content in {**(graph_files or {}), **(extra_files or {})}.items():
            (directory / name).write_bytes(content)
        digests = {name: store.sha256(directory / name) for name in graph_files or {}}
        update = {"weights_sha256": store.sha256(directory / WEIGHTS), "graph_sha256": digests}
        sealed = manifest.model_copy(update=update)
        sealed = sealed.model_copy(update={"fingerprint": sealed.compute_fingerprint()})
        (directory / MANIFEST).write_text(sealed.model_dump_json(), encoding="utf-8")
    return draft.version


def write_bundle_directory(
    directory: Path,
    manifest: BundleManifest,
    tensors: dict[str, npt.NDArray[np.generic]],
    *,
    split: Split,
    graph_files: Mapping[str, bytes] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a bundle as a directory outside of any store, for `import_bundle` on another machine.

    Args:
        directory: to create.
        manifest, tensors, split, graph_files, extra_files: see `write_bundle`.

    Raises:
        BundleDamaged: as `write_bundle`.
        ArtifactUnwritable: the directory exists already, the disk is full or may not be written.
    """
    with _aside(directory) as aside:
        store = _bundles(aside)
        version = write_bundle(store, manifest, tensors, split=split, graph_files=graph_files, extra_files=extra_files)
        store.path(version).rename(directory)


def export_bundle(store: ArtifactStore, version: str, directory: Path) -> None:
    """Verify a version and copy it into a directory outside of the store, for `import_bundle`.

    Args:
        store: of the bundles.
        version: its name.
        directory: to create.

    Raises:
        BundleMissing, BundleDamaged: as `open_bundle`.
        ArtifactUnwritable: as `write_bundle_directory`.
    """
    bundle = open_bundle(store, version)
    with _aside(directory) as aside:
        shutil.copytree(bundle.directory, aside / version).rename(directory)


def import_bundle(store: ArtifactStore, directory: Path) -> str:
    """Copy a bundle's directory into the store, unless it has the same bundle already; it is not promoted.

    Args:
        store: of the bundles.
        directory: as `export_bundle` or `write_bundle_directory` wrote it.

    Returns:
        the version's name in the store.

    Raises:
        BundleMissing, BundleDamaged: as `open_bundle_directory`.
        ArtifactUnwritable: the disk is full or may not be written.
    """
    open_bundle_directory(directory)
    manifest = store.manifest_in(directory)
    for version in reversed(store.versions()):
        if store.file(version, MANIFEST).read_bytes() == (directory / MANIFEST).read_bytes():
            return version
    files = manifest["files"]
    assert isinstance(files, dict)  # manifest_in() checked it
    with store.write() as draft:
        for name in (*files, MANIFEST):
            shutil.copyfile(directory / Path(name).name, draft.directory / Path(name).name)
    store.verify(draft.version)
    return draft.version


def read_manifest(store: ArtifactStore, version: str) -> BundleManifest:
    """Read the manifest of a version, without reading the weights.

    Args:
        store: of the bundles.
        version: its name.

    Raises:
        BundleMissing: there is no such version.
        BundleDamaged: the manifest cannot be read, or its fingerprint is wrong.
    """
    return _parsed(version, store.manifest(version))


def _parsed(name: str, raw: Mapping[str, object]) -> BundleManifest:
    try:
        manifest = BundleManifest.model_validate(raw)
    except ValidationError as exc:
        raise BundleDamaged(f"{name}: {MANIFEST} is not that of a bundle") from exc
    if manifest.fingerprint != manifest.compute_fingerprint():
        raise BundleDamaged(f"{name}: the fingerprint does not belong to what the manifest describes")
    return manifest


def open_bundle(store: ArtifactStore, version: str | None = None) -> ModelBundle:
    """Verify and open a version of the bundle.

    Args:
        store: of the bundles.
        version: its name; None: the promoted one.

    Raises:
        BundleMissing: there is no such version, or none has been promoted.
        BundleDamaged: a file differs from what was written.
    """
    version = version or store.current()
    if version is None:
        raise BundleMissing("no model bundle has been promoted yet; `lookalike index build` makes one")
    store.verify(version)
    return _opened(store.path(version), read_manifest(store, version))


def known_categories(storage: Location) -> tuple[str, ...] | None:
    """Return the names of the promoted bundle's categories, whose order the next one keeps; None without one.

    Raises:
        StoreUnavailable: the object store does not answer.
    """
    store = bundle_store(storage)
    with suppress(BundleMissing, BundleDamaged):
        if (version := store.current()) is not None:
            return read_manifest(store, version).categories
    return None


def open_bundle_directory(directory: Path) -> ModelBundle:
    """Verify and open a bundle anywhere on disk, without trusting who wrote it.

    Args:
        directory: of the bundle; its name is the version.

    Raises:
        BundleMissing: the directory does not exist.
        BundleDamaged: a file differs from what was written, or a weight is not finite.
    """
    if not directory.is_dir():
        raise BundleMissing(f"there is no directory {directory}")
    store = _bundles(directory.parent)
    manifest = _parsed(directory.name, store.manifest_in(directory))
    store.verify_files(directory)
    names = manifest.categories
    if not 2 <= len(set(names)) == len(names) <= MOST_CATEGORIES:
        raise BundleDamaged(f"{directory.name}: a model has 2 to {MOST_CATEGORIES} different categories")
    digests = {WEIGHTS: manifest.weights_sha256, **manifest.graph_sha256}
    if manifest.references:
        digests[REFERENCES] = manifest.references.sha256
    if manifest.text:
        digests[TEXT] = manifest.text.sha256
        if manifest.text.sentences:
            digests |= {name: manifest.text.sentences.sha256.get(name, "") for name in SENTENCE_FILES}
    for name, digest in digests.items():
        path = directory / Path(name).name
        if not path.is_file() or store.sha256(path) != digest:
            raise BundleDamaged(f"{directory.name}: {name} is not the one that its fingerprint stands for")
    bundle = _opened(directory.resolve(), manifest)
    _require_finite(bundle.version, bundle.tensors())
    return bundle


def _opened(directory: Path, manifest: BundleManifest) -> ModelBundle:
    try:
        split = Split.model_validate_json((directory / SPLIT).read_bytes())
    except (OSError, ValidationError) as exc:
        raise_exhaustion(exc)
        raise BundleDamaged(f"{directory.name}: {SPLIT} is not that of a bundle") from exc
    return ModelBundle(directory.name, manifest, directory, split)


def _bundles(root: Path) -> ArtifactStore:
    return ArtifactStore(root, missing=BundleMissing, damaged=BundleDamaged)


@contextmanager
def _aside(directory: Path) -> Iterator[Path]:
    """A temporary directory beside one to create, so that a rename makes the latter complete at once."""
    if directory.exists():
        raise ArtifactUnwritable(f"{directory} is there already; name a new directory")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=directory.parent) as aside:
            yield Path(aside)
    except OSError as exc:
        raise unwritable(directory.parent, exc) from exc


def _require_finite(name: str, tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for tensor, values in tensors.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise BundleDamaged(f"{name}: {tensor} has values that are not finite; training it went wrong")
