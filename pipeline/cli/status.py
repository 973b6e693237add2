"""`lookalike status` shows a running service on one screen, `lookalike workers` lists its workers."""

import sys
import time
from dataclasses import dataclass
from typing import Any

import click
import redis

from pipeline.cli.common import json_option, print_facts, report_errors, running_jobs, running_redis, when
from pipeline.cli.help import with_examples
from shared.jobs.contract import JobKind, JobStatus
from shared.jobs.listing import JobListing
from shared.jobs.store import JobStore
from shared.jobs.worker_registry import WorkerRegistry
from shared.jobs.worker_report import WorkerReport
from shared.schedule.cron import next_slot
from shared.schedule.slots import Schedule

NOT_READY = 3
_REFRESH_S = 2.0
_SHOWN_LATE_S = 10.0


@with_examples("lookalike workers", "lookalike workers --json | jq '.workers[] | {name, state, photos_per_s}'")
@click.command()
@json_option
@report_errors
def workers(as_json: bool) -> None:
    """List the workers: what each runs on and how fast, which index it serves, what is wrong.

    Those are listed that have reported within 15 seconds; photos/s is what a worker measured at its start.

    Exit code: 3 when none is ready.
    """
    registry = WorkerRegistry(running_redis())
    found = registry.live()
    facts = [_facts(worker, registry.now()) for worker in found]
    text = "\n".join(_table(facts)) or "no worker has reported within 15 s: is one running?"
    print_facts(as_json, {"workers": facts}, text)
    sys.exit(_exit_code(found))


@with_examples("lookalike status", "lookalike status --watch", "lookalike status --json | jq .queue")
@click.command()
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@json_option
@report_errors
def status(watch: bool, as_json: bool) -> None:
    """Show the running service on one screen: what waits, who works, what is served, when it is renewed.

    Exit code: 3 when no worker is ready.
    """
    client, jobs = running_redis(), running_jobs()
    while True:
        current = _read_status(client, jobs)
        if watch and not as_json:
            click.clear()
        print_facts(as_json, current.facts, "\n".join(current.lines()))
        if not watch:
            sys.exit(_exit_code(current.workers))
        time.sleep(_REFRESH_S)


@dataclass(frozen=True)
class _ServiceStatus:
    """State of a service at one moment, as facts for programs and lines for people."""

    workers: list[WorkerReport]
    facts: dict[str, Any]

    def lines(self) -> list[str]:
        """Format the facts as lines of text, the table of workers last."""
        queue, index, schedule = self.facts["queue"], self.facts["index"], self.facts["schedule"]
        waiting = ", ".join(f"{count} {line}" for line, count in queue["queued"].items() if count) or "nothing"
        late = f", the oldest for {queue['oldest_wait_s']:.0f} s" if queue["oldest_wait_s"] >= _SHOWN_LATE_S else ""
        lines = [f"queue     {waiting} waiting{late}; {queue['running']} in hand"]
        for job in self.facts["reindexes"]:
            lines.append(f"reindex   {job['id']} {job['status']}" + (f", {job['stage']}" if job["stage"] else ""))
        if index:
            changed = f", {index['changed']} put or deleted since" if index["changed"] else ""
            lines.append(f"index     {index['version']}: {index['count']} photos of {index['catalogue']}{changed}")
            lines.append(
                f"model     {index['backbone']} {index['runtime']} {index['precision']}, {index['model_version']}"
            )
        else:
            lines.append("index     no worker serves one")
        lines.append("renewed   " + (f"next {schedule['next']}, as {schedule['cron']}" if schedule else "by hand"))
        return [*lines, "", *_table(self.facts["workers"])] if self.workers else [*lines, "", "no worker reports"]


def _read_status(client: redis.Redis, jobs: JobStore) -> _ServiceStatus:
    registry = WorkerRegistry(client)
    workers = registry.live()
    backlog = jobs.backlog()
    serving = next((worker.index for worker in workers if worker.index), None)
    schedule = Schedule(client, jobs)
    last = schedule.last()
    listing = JobListing(client)
    open_reindexes = [
        job
        for state in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELING)
        for job in listing.page(owner=None, limit=10, status=state, kind=JobKind.REINDEX, cursor=None).jobs
    ]
    return _ServiceStatus(
        workers,
        {
            "queue": {
                "queued": backlog.queued,
                "running": backlog.running,
                "oldest_wait_s": round(backlog.oldest_wait_s, 1),
            },
            "reindexes": [
                {"id": job.id, "status": job.status, "stage": job.progress.stage if job.progress else None}
                for job in open_reindexes
            ],
            "index": serving.model_dump(mode="json") if serving else None,
            "schedule": {"cron": last.cron, "next": when(next_slot(last.cron, schedule.now()))} if last else None,
            "workers": [_facts(worker, registry.now()) for worker in workers],
        },
    )


def _facts(worker: WorkerReport, now: float) -> dict[str, Any]:
    """A worker's heartbeat as facts, without the histograms, which are for /metrics."""
    reported = worker.model_dump(mode="json", exclude={"stats", "index"})
    index = worker.index
    return {
        **reported,
        "heard_s_ago": round(now - worker.reported_at, 1),
        "index_version": index.version if index else None,
        "count": index.count if index else None,
        "runtime": index.runtime if index else None,
        "precision": index.precision if index else None,
    }


def _table(workers: list[dict[str, Any]]) -> list[str]:
    """Table of workers: a header, then one line for each, with its problem beneath it."""
    if not workers:
        return []
    head = ("worker", "state", "on", "photos/s", "held", "heard", "index")
    rows = [head, *(_row(worker) for worker in workers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table = [lines[0]]
    for line, worker in zip(lines[1:], workers, strict=True):
        table += [line, *([f"  problem: {worker['problem']}"] if worker["problem"] else [])]
    return table


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    runs_on = " ".join(filter(None, (worker["device"], worker["runtime"], worker["precision"])))
    speed = worker["photos_per_s"]
    return (
        worker["name"],
        worker["state"],
        runs_on or "-",
        f"{speed:.0f}" if speed is not None else "-",
        str(worker["held"]),
        f"{worker['heard_s_ago']:.0f} s ago",
        worker["index_version"] or "-",
    )


def _exit_code(workers: list[WorkerReport]) -> int:
    return 0 if any(worker.state == "ready" for worker in workers) else NOT_READY
