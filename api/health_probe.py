"""The canary: a made photo sent through queue, worker and model every so often, so that readiness is not hearsay."""

import logging
import secrets
import threading
from collections.abc import Callable

import redis

from shared.errors import LookalikeError
from shared.jobs.contract import EmbedRequest, Job, JobKind, JobStatus, Submission
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.photos.preprocessing import PreprocessSpec
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_OWNER = "_canary"
_ANSWER_WITHIN_S = 15.0
_AGAIN_S = 5.0  # while something is wrong
_ALWAYS = Admission(max_queued=1 << 30, max_queued_per_owner=1 << 30)  # even when the queue is full


class HealthProbe:
    """Sends canary jobs from a thread of its own.

    Args:
        every_s: pause between two; 0 sends none.
        spec: by which the model that answers takes photos.
        dispatch: has some worker begin with a job.

    Attributes:
        problem: why the last one did not come back, or None.
    """

    def __init__(
        self,
        store: JobStore,
        registry: WorkerRegistry,
        *,
        every_s: float,
        spec: Callable[[], PreprocessSpec],
        dispatch: Callable[[Job], None],
    ) -> None:
        self.problem: str | None = None
        self._store = store
        self._registry = registry
        self._every_s = every_s
        self._spec = spec
        self._dispatch = dispatch
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin; ends with the process, or when stopped."""
        if self._every_s:
            threading.Thread(target=self._run, name="canary", daemon=True).start()

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_AGAIN_S if self.problem else self._every_s):
            try:
                problem = self.send() if self._someone_is_ready() else None
            except (redis.RedisError, LookalikeError):
                continue  # readiness asks Redis itself
            if problem != self.problem:
                event(_LOG, "canary", level=logging.ERROR if problem else logging.INFO, problem=problem or "none")
            self.problem = problem

    def send(self) -> str | None:
        """Send one and wait for it; returns what is wrong, or None."""
        spec = self._spec()
        pixels = secrets.token_bytes(3) * (spec.n_bytes // 3)  # of another colour each time: no cache knows it
        created = self._store.create(
            JobKind.EMBED,
            EmbedRequest(),
            pixels,
            admission=_ALWAYS,
            spec=spec,
            submission=Submission(deadline_s=2 * _ANSWER_WITHIN_S),
            owner=_OWNER,
            call_idle=True,
        )
        if not created.called:
            self._dispatch(created.job)
        job = self._store.wait(created.job, _ANSWER_WITHIN_S)
        if not job.status.terminal:
            return f"workers report, but took {_ANSWER_WITHIN_S:.0f} s and more for a canary photo"
        if job.status is not JobStatus.SUCCEEDED:
            return f"a canary photo ended as {job.status}" + (f" ({job.error.code})" if job.error else "")
        return None

    def _someone_is_ready(self) -> bool:
        return any(worker.state == "ready" for worker in self._registry.live())
