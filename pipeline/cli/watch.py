"""Submits a long job to the running service, and shows its progress on a terminal."""

import signal
import sys

from tqdm import tqdm

from pipeline.cli.common import dispatch, print_progress
from shared.jobs.contract import Job, JobKind, JobRequest
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from shared.settings import load_settings

_LOOK_EVERY_S = 0.5


def run_job(jobs: JobStore, kind: JobKind, request: JobRequest, *, wait: bool) -> Job:
    """Submit a job.

    Args:
        jobs: of the running service.
        kind: what the job does.
        request: options of that kind.
        wait: show its progress until it ends.

    Returns:
        the job, as it is when it ended or was submitted.

    Raises:
        ReindexRunning: it is a reindex, and there is one already.
    """
    n_queued = load_settings().max_queued
    job = jobs.create(kind, request, None, admission=Admission(n_queued, n_queued), request_id="cli").job
    dispatch(job)
    return _watch(jobs, job) if wait else job


def _watch(jobs: JobStore, job: Job) -> Job:
    """Show a progress bar until the job ends, and return the job. Ctrl-C exits without canceling the job."""
    stage = ""
    try:
        with tqdm(desc="queued", dynamic_ncols=True, disable=None) as bar:
            while not job.status.terminal:
                job = jobs.wait(job, _LOOK_EVERY_S)
                if job.progress is None:
                    continue
                if job.progress.stage != stage:
                    stage = job.progress.stage
                    bar.reset()
                    bar.set_description(stage)
                bar.total, bar.n = job.progress.total, job.progress.done
                bar.refresh()
    except KeyboardInterrupt:
        print_progress(f"{job.kind} {job.id} goes on; `lookalike jobs cancel {job.id}` ends it")
        sys.exit(128 + signal.SIGINT)
    return job
