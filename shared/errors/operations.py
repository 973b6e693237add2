"""Errors of artifacts, catalogues, training, starts, and of jobs that end without a result."""

from shared.errors.base import ArtifactError, LookalikeError


class BundleMissing(ArtifactError):
    """No model yet: `lookalike prepare`."""

    code = "bundle_missing"


class BundleDamaged(ArtifactError):
    """A file of the model is not what was written: `lookalike index build`."""

    code = "bundle_damaged"


class ModelNotCompiled(BundleDamaged):
    """The model's graph is whole, and this host cannot run it now, as where it lacks threads or memory; or never."""


class IndexMissing(ArtifactError):
    """No index yet: `lookalike prepare`."""

    code = "index_missing"


class IndexDamaged(ArtifactError):
    """A file of the index is not what was written: `lookalike index build`."""

    code = "index_damaged"


class IndexUnavailable(ArtifactError):
    """Milvus, which has the vectors of the index, does not answer: try again later; `/readyz` says more."""

    code = "index_unavailable"
    retryable = True


class FingerprintMismatch(ArtifactError):
    """The index was built by another model: `lookalike index build`."""

    code = "fingerprint_mismatch"


class EmbeddingsDiffer(ArtifactError):
    """The model gives other embeddings on this worker's processor than where it was built, so it is not served there:
    build it again with `LOOKALIKE_PRECISION=float32`.
    """

    code = "embeddings_differ"


class TorchMissing(ArtifactError):
    """The model, or what was asked for, needs torch, which is not installed: `make torch`."""

    code = "torch_missing"


class RerankerMissing(ArtifactError):
    """Command line only: there is no such re-ranker: `lookalike reranker list`."""

    code = "reranker_missing"


class RerankerDamaged(ArtifactError):
    """Command line only: a file of the re-ranker is not what was written: `lookalike reranker train`."""

    code = "reranker_damaged"


class ArtifactUnwritable(ArtifactError):
    """The disk is full or may not be written: make room and try again; what was live stays."""

    code = "artifact_unwritable"
    http_status = 507


class DimensionMismatch(ArtifactError):
    """The query's dimension is not that of the index's vectors."""

    code = "dimension_mismatch"
    http_status = 500


class StoreUnavailable(LookalikeError):
    """The object store with models and index does not answer: try again later; `/readyz` says more."""

    code = "store_unavailable"
    http_status = 503
    retryable = True


class CatalogueUnusable(LookalikeError):
    """Command line only: the catalogue cannot be used; the message says what to correct."""

    code = "catalogue_unusable"
    http_status = 422


class WeightsUnusable(LookalikeError):
    """Command line only: the weights cannot be downloaded or used; the message says why."""

    code = "weights_unusable"
    http_status = 422


class TrainingFailed(LookalikeError):
    """Command line only: a training run cannot continue; the message says why."""

    code = "training_failed"


class CannotStart(LookalikeError):
    """Command line only: a process cannot start; the message says what to correct."""

    code = "cannot_start"


class PhotoExpired(LookalikeError):
    """The job waited until its photo expired, or until the model it was preprocessed for was gone (a job's error)."""

    code = "photo_expired"
    http_status = 410


class ShardFailed(LookalikeError):
    """Part of a reindex failed, and a retry would not help (a job's error)."""

    code = "shard_failed"


class WorkerLost(LookalikeError):
    """The worker died in every attempt (a job's error)."""

    code = "worker_lost"
    retryable = True


class DeadlineExceeded(LookalikeError):
    """The job was not finished before its deadline (a job's error)."""

    code = "deadline_exceeded"
    http_status = 504
    retryable = True


class JobCanceled(LookalikeError):
    """The job that this call waited for was cancelled."""

    code = "job_canceled"
    http_status = 409
