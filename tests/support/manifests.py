"""Manifests of model bundles, for tests that need no model."""

from shared.model.backbones import EMBEDDING_DIM, NORMALISATION
from shared.model.bundle import BundleManifest
from shared.photos.images import PreprocessSpec
from shared.settings import Backbone

LITE0 = Backbone.EFFICIENTNET_LITE0


def manifest(spec: PreprocessSpec, **changed: object) -> BundleManifest:
    made = BundleManifest(
        backbone=LITE0,
        weights="random",
        weights_sha256="",
        embedding_dim=EMBEDDING_DIM[LITE0],
        preprocess=spec,
        normalisation=NORMALISATION[LITE0],
        metrics={"accuracy": 0.5},
        catalogue="none",
        built_at="2026-01-01T00:00:00+00:00",
    )
    return made.model_copy(update=changed)
