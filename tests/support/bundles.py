"""Small model bundles of any spec, and indexes by them: random weights, which tell photos apart as well as any."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shared.artifacts import Location
from shared.artifacts.snapshots import bundle_store, index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.model.backbones import NORMALISATION
from shared.model.bundle import Split, open_bundle, write_bundle
from shared.model.network import Network
from shared.model.runtimes import open_embedder
from shared.photos.images import PreprocessSpec, decode_photo
from tests.support.manifests import LITE0, manifest
from tests.support.snapshots import write_snapshot


def random_network(seed: int = 1, n_categories: int = len(CATEGORIES)) -> Network:
    torch.manual_seed(seed)
    return Network(LITE0, NORMALISATION[LITE0], n_categories)


def make_bundle(storage: Location, spec: PreprocessSpec, **changed: object) -> str:
    """A version, not promoted."""
    made = manifest(spec, **changed)
    tensors = random_network(n_categories=len(made.categories)).tensors()
    return write_bundle(bundle_store(storage), made, tensors, split=Split())


def make_index(storage: Location, bundle_version: str, photos: Sequence[bytes]) -> str:
    """A version of the index by that bundle, not promoted; the photos' ids are their positions."""
    bundle = open_bundle(bundle_store(storage), bundle_version)
    pixels = np.stack([decode_photo(photo, bundle.manifest.preprocess) for photo in photos])
    return write_snapshot(
        index_store(storage),
        [CataloguePhoto(str(i), f"l{i}", i % 13, Path(f"{i}.jpg"), f"{i:064}") for i in range(len(photos))],
        open_embedder(bundle).embed(pixels),
        fingerprint=bundle.manifest.fingerprint,
        catalogue="noise",
        catalogue_digest="0" * 64,
    )
