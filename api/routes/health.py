"""Endpoints for operators: liveness, readiness, metrics, workers and queue."""

import redis
from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import NoPermissionError

from api.http.responses import answer
from api.http.views import QueueView, Readiness, WorkerList, WorkerView
from api.openapi.operation import TEXT, Operation
from api.openapi.schemas import exactly
from api.routes.metrics import render
from api.service import service
from shared.jobs.worker_registry import SHARED_REDIS
from shared.redis_client import eviction_trouble, queue_trouble

bp = Blueprint("ops", __name__)


@bp.get("/livez")
@Operation("The process answers", {200: (exactly(status={"const": "alive"}), "alive")})
def livez() -> Response:
    """GET /livez: the process is alive."""
    return jsonify({"status": "alive"})


@bp.get("/metrics")
@Operation("Prometheus metrics", {200: (TEXT, "text in Prometheus's exposition format")})
def metrics() -> Response:
    """GET /metrics: Prometheus metrics."""
    found = service()
    told = render(found.store, found.registry.live(), found.quality, found.counters)
    return Response(told, content_type=CONTENT_TYPE_LATEST)


@bp.get("/readyz")
@Operation(
    "Whether jobs are done, and what is missing if not", {200: (Readiness, "ready"), 503: (Readiness, "not ready")}
)
def readyz() -> Response:
    """GET /readyz: whether the service can do jobs.

    200 if Redis answers, a worker with a loaded model and index has reported within 15 s, and the last health probe
    succeeded; else 503 with what is missing. What is wrong although jobs are done is told with 200.
    """
    missing: list[str] = []
    ready = 0
    try:
        workers, evicts = service().registry.live(), eviction_trouble(service().redis)
    except (redis.AuthenticationError, redis.BusyLoadingError, NoPermissionError) as exc:
        missing.append(queue_trouble(exc))
    except redis.RedisError:
        missing.append("redis does not answer")
    else:
        ready = sum(worker.state == "ready" for worker in workers)
        if not workers:
            missing.append("no worker has reported within 15 s")
        elif not ready:
            missing.append("no worker has a loaded model and index")
        if len({worker.installation for worker in workers if worker.installation}) > 1:
            missing.append(SHARED_REDIS)
        missing += [evicts] if evicts else []
        missing += sorted({worker.problem for worker in workers if worker.problem})
        if problem := service().health_probe.problem:
            missing.append(problem)
            ready = 0
    body = Readiness(status="ready" if ready else "unready", workers=ready, problems=missing)
    return answer(body, status=200 if ready else 503)


@bp.get("/v1/workers")
@Operation("Who works, and what waits", {200: (WorkerList, "by name")})
def list_workers() -> Response:
    """GET /v1/workers: the workers that reported within 15 s, and the queue."""
    reports = sorted(service().registry.live(), key=lambda worker: worker.name)
    backlog = service().store.backlog()
    return answer(
        WorkerList(
            workers=[WorkerView.model_validate(worker.model_dump()) for worker in reports],
            queue=QueueView(queued=backlog.queued, running=backlog.running, oldest_wait_s=backlog.oldest_wait_s),
        )
    )
