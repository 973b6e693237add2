"""Model and index in memory, swapped as one. Knows nothing of Redis or Celery."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import ArtifactError, IndexMissing, InternalError, PhotoExpired
from shared.images import Pixels
from shared.jobs import EmbedRequest, IndexInfo, JobRequest, JobResult, SearchRequest
from shared.telemetry import event
from shared.vision.answers import embed_result, search_result
from shared.vision.bundle import ModelBundle, bundle_store, open_bundle
from shared.vision.embedder import Embedder, Embeddings
from shared.vision.index import IndexSnapshot, index_store, open_snapshot
from shared.vision.runtimes import TorchEmbedder

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Live:
    """One model and an index built by it; a job sees exactly one of these."""

    bundle: ModelBundle
    embedder: Embedder
    snapshot: IndexSnapshot


class Engine:
    """Answers requests from the current bundle and index of one installation.

    Args:
        home: where bundles and indexes lie.
        torch_threads: CPU threads of one forward pass; 0 leaves torch's choice.

    Attributes:
        problem: why the promoted artifacts are not the ones in use, or None.
    """

    def __init__(self, home: Path, *, torch_threads: int = 0) -> None:
        self._bundles = bundle_store(home)
        self._indexes = index_store(home)
        self._torch_threads = torch_threads
        self._live: _Live | None = None
        self._tried: tuple[str | None, str | None] | None = None
        # One pass at a time already uses every core; two would only fight over them.
        self._forward_pass = threading.Lock()
        self.problem: str | None = None

    @property
    def ready(self) -> bool:
        return self._live is not None

    def refresh(self) -> None:
        """Follow the CURRENT pointers; what cannot be used is reported in `problem`, and the old keeps serving."""
        try:
            wanted = (self._bundles.current(), self._indexes.current())
            if self.ready and wanted == self._tried:
                return
            self._tried = wanted
            self._live = self._load()
        except (ArtifactError, OSError) as exc:
            if str(exc) != self.problem:
                event(_LOG, "artifacts_refused", level=logging.ERROR, kind=type(exc).__name__, reason=str(exc))
            self.problem = str(exc) if isinstance(exc, ArtifactError) else "the artifacts cannot be read from disk"
        else:
            self.problem = None

    def _load(self) -> _Live:
        bundle = open_bundle(self._bundles)
        live = self._live
        kept = live is not None and live.bundle.version == bundle.version
        embedder = live.embedder if live and kept else TorchEmbedder(bundle, threads=self._torch_threads)
        snapshot = open_snapshot(self._indexes, fingerprint=bundle.manifest.fingerprint)
        if not kept:
            size_px = bundle.manifest.preprocess.size_px
            embedder.embed(np.zeros((1, size_px, size_px, 3), dtype=np.uint8))  # the first pass is the slowest
        event(_LOG, "artifacts_loaded", bundle=bundle.version, index=snapshot.version, count=len(snapshot))
        return _Live(bundle, embedder, snapshot)

    def run(self, request: JobRequest, pixels: bytes | None) -> JobResult:
        """Answer one request.

        Args:
            pixels: size_px * size_px * 3 bytes; None when the request names a photo of the index.

        Raises:
            ImageNotFound: the index has no photo of the id in the request.
            PhotoExpired: neither pixels nor an id.
        """
        live = self._live
        if live is None:
            raise IndexMissing(self.problem or "nothing is loaded yet")
        embeddings = self._embeddings(live, request, pixels)
        match request:
            case SearchRequest():
                return search_result(embeddings, request, live.snapshot)
            case EmbedRequest():
                return embed_result(embeddings, request.encoding, live.bundle.manifest.fingerprint)

    def _embeddings(self, live: _Live, request: JobRequest, pixels: bytes | None) -> Embeddings:
        if request.image_id is not None:
            return live.snapshot.stored(request.image_id)
        if pixels is None:
            raise PhotoExpired("the photo waited longer than it is kept; send it again")
        size_px = live.bundle.manifest.preprocess.size_px
        photo: Pixels = np.frombuffer(bytearray(pixels), dtype=np.uint8).reshape(1, size_px, size_px, 3)
        with self._forward_pass:
            embeddings = live.embedder.embed(photo)
        if not np.isfinite(embeddings.vectors).all():
            raise InternalError("the model gave no finite embedding for this photo")
        return embeddings

    def info(self) -> IndexInfo | None:
        """What is being served, or None before anything is loaded."""
        if (live := self._live) is None:
            return None
        model, index = live.bundle.manifest, live.snapshot.manifest
        return IndexInfo(
            version=live.snapshot.version,
            count=index.count,
            dimension=index.dimension,
            built_at=index.built_at,
            catalogue=index.catalogue,
            backbone=model.backbone,
            weights=model.weights,
            model_fingerprint=model.fingerprint,
            model_version=live.bundle.version,
            metrics=model.metrics,
            notice=model.notice,
        )
