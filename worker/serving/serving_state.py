"""ServingState: a model in memory with an index built by it."""

from dataclasses import dataclass

from shared.index.delta.index import DeltaIndex
from shared.jobs.worker_report import IndexInfo
from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.model.references import notice_of
from shared.photos.images import Pixels, PreprocessSpec
from worker.serving.loaded_model import Model
from worker.serving.micro_batcher import MicroBatcher


@dataclass(frozen=True)
class ServingState:
    """One model with an index built by it; a job uses exactly one of these from start to end.

    Attributes:
        model: in memory.
        index: snapshot and pending changes.
    """

    model: Model
    index: DeltaIndex

    @property
    def bundle(self) -> ModelBundle:
        """The model's bundle."""
        return self.model.bundle

    @property
    def batcher(self) -> "MicroBatcher[Pixels, Embeddings]":
        """The model's batcher."""
        return self.model.batcher

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing spec of the photos that the model takes."""
        return self.bundle.manifest.preprocess

    def info(self) -> IndexInfo:
        """Describe model and index, for heartbeats and `GET /v1/index`."""
        model, index = self.bundle.manifest, self.index.manifest
        return IndexInfo(
            version=self.index.version,
            count=index.count,
            changed=self.index.n_changed,
            dimension=index.dimension,
            built_at=index.built_at,
            catalogue=index.catalogue,
            backbone=model.backbone,
            weights=model.weights,
            model_fingerprint=model.fingerprint,
            model_version=self.bundle.version,
            metrics=model.metrics,
            metrics_catalogue=model.catalogue,
            recipe=model.recipe,
            runtime=model.runtime,
            precision=model.precision,
            preprocess=model.preprocess,
            temperature=model.temperature,
            abstain_below=model.abstain_below,
            words=model.text.attributes if model.text else (),
            text_weight=model.fusion.text_weight if model.text and model.fusion else None,
            notice=notice_of(model),
        )
