"""The health probe: sends a synthetic photo through queue, worker and model at intervals.

`GET /readyz` uses its outcome: a worker that reports itself ready but finishes no job makes the service unready.
"""

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
from shared.redis_client import queue_trouble
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_OWNER = "_canary"  # owner of the jobs, part of their keys in Redis: what it was called before
_ANSWER_WITHIN_S = 15.0
_AGAIN_S = 5.0  # pause while something is wrong
_UNLIMITED = Admission(max_queued=1 << 30, max_queued_per_owner=1 << 30)  # probes are sent even to a full queue


class HealthProbe:
    """Sends embed jobs with a synthetic photo from a background thread, and remembers whether they succeed.

    Args:
        every_s: pause between two; 0 sends none.
        spec: by which the model that answers takes photos.
        dispatch: has some worker begin with a job.

    Attributes:
        problem: why the last job did not succeed, or while no worker reports, why none can; for people. None if it did,
            or if none was sent.
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
        """Start the thread. It ends with the process, or after `stop`."""
        if self._every_s:
            threading.Thread(target=self._run, name="health-probe", daemon=True).start()

    def stop(self) -> None:
        """Stop the thread before its next job."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_AGAIN_S if self.problem else self._every_s):
            try:
                problem = None
                if self._any_worker_ready():
                    problem = self.send()
                else:
                    self._registry.check_writable()
            except redis.ResponseError as exc:  # it answers, /readyz too, and takes no job
                problem = queue_trouble(exc)
            except (redis.RedisError, LookalikeError, OSError):  # OSError: no more files may be opened
                continue  # /readyz asks Redis itself
            if problem != self.problem:
                event(_LOG, "health_probe", level=logging.ERROR if problem else logging.INFO, problem=problem or "none")
            self.problem = problem

    def send(self) -> str | None:
        """Send one job and wait up to 15 s for it.

        Returns:
            What is wrong, for people; None if the job succeeded.

        Raises:
            redis.RedisError: Redis does not answer.
            LookalikeError: the job was not accepted.
        """
        spec = self._spec()
        pixels = secrets.token_bytes(3) * (spec.n_bytes // 3)  # a random colour, so that no cache has its embedding
        created = self._store.create(
            JobKind.EMBED,
            EmbedRequest(),
            pixels,
            admission=_UNLIMITED,
            spec=spec,
            submission=Submission(deadline_s=2 * _ANSWER_WITHIN_S),
            owner=_OWNER,
            call_idle=True,
        )
        if not created.called:
            self._dispatch(created.job)
        job = self._store.wait(created.job, _ANSWER_WITHIN_S)
        if not job.status.terminal:
            return f"workers report, but took {_ANSWER_WITHIN_S:.0f} s and more for the photo of a health probe"
        if job.status is not JobStatus.SUCCEEDED:
            return f"the photo of a health probe ended as {job.status}" + (f" ({job.error.code})" if job.error else "")
        return None

    def _any_worker_ready(self) -> bool:
        return any(worker.state == "ready" for worker in self._registry.live())
