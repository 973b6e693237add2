"""One trace from the HTTP request through claim, model and search to the end of its job, as a collector receives it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from shared.jobs.store import JobStore
from tests import ROOT
from tests.e2e.conftest import eventually
from tests.e2e.support.held_fleet import HeldFleet, held_fleet

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP receiver; keeps spans with the name of the service that they came from."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Span]] = []

    def of_trace(self, trace_id: str) -> list[tuple[str, Span]]:
        return [(service, span) for service, span in list(self.spans) if span.trace_id.hex() == trace_id]

    def tree(self, trace_id: str) -> dict[str, str]:
        """The spans of a trace, each with the name of its parent; the last of a name."""
        spans = [span for _, span in self.of_trace(trace_id)]
        names = {span.span_id: span.name for span in spans}
        return {span.name: names.get(span.parent_span_id, span.parent_span_id.hex()) for span in spans}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        received = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in received.resource_spans:
            [service] = [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
            self.server.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def traced(
    home: Path, catalogue: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HeldFleet]:
    """A service that sends its traces to the collector."""
    place = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with (
        mock.patch.dict(os.environ, place),
        held_fleet(home, catalogue, tmp_path_factory.mktemp("traced"), tracing=1) as fleet,
    ):
        fleet.start("api")
        fleet.start("held")
        fleet.wait_ready()
        yield fleet


def test_a_search_is_one_trace_from_the_request_to_its_end(
    traced: HeldFleet, collector: Collector, photos: list[Path]
) -> None:
    answer = requests.post(
        f"{traced.url}/v1/jobs/search",
        files={"image": photos[0].read_bytes()},
        headers={"Prefer": "wait=10", "traceparent": f"00-{TRACE}-{PARENT}-01"},
        timeout=20,
    )
    assert answer.json()["status"] == "succeeded"
    assert "trace" not in answer.text
    eventually(lambda: len(collector.of_trace(TRACE)) == 6, 20, "the collector has all spans")
    task = "run/lookalike.search"
    http = next(span.name for service, span in collector.of_trace(TRACE) if service == "lookalike-api")
    assert http == "POST /v1/jobs/search"
    assert collector.tree(TRACE) == {
        http: PARENT,
        task: http,
        "claim": task,
        "model": task,
        "search": task,
        "finish": task,
    }
    spans = {span.name: span for _, span in collector.of_trace(TRACE)}
    services = {span.name: service for service, span in collector.of_trace(TRACE)}
    assert services.pop(http) == "lookalike-api"
    assert set(services.values()) == {"lookalike-worker"}
    order = [spans[name] for name in ("claim", "model", "search", "finish")]
    assert all(one.end_time_unix_nano <= next_.start_time_unix_nano for one, next_ in pairwise(order))
    assert spans[http].start_time_unix_nano <= spans["claim"].start_time_unix_nano
    ids = {one.value.string_value for one in spans[task].attributes if one.key == "messaging.message.id"}
    assert ids == {answer.json()["id"]}


def test_a_reindex_carries_its_trace_to_its_shards(traced: HeldFleet, collector: Collector) -> None:
    trace = TRACE[::-1]
    answer = requests.post(
        f"{traced.url}/v1/jobs/reindex",
        json={"mode": "all"},
        headers={"traceparent": f"00-{trace}-{PARENT}-01"},
        timeout=20,
    )
    job_id = answer.json()["id"]
    eventually(lambda: traced.status(job_id) == "succeeded", 60, "the reindex ends")
    eventually(lambda: "run/lookalike.reindex" in collector.tree(trace), 20, "the collector has its span")
    tree = collector.tree(trace)
    assert tree["run/lookalike.embed_shard"] == "embedding"
    assert {tree[stage] for stage in ("planning", "embedding", "building", "promoting")} == {"run/lookalike.reindex"}
    assert tree["run/lookalike.reindex"] == "POST /v1/jobs/reindex"


def test_what_machines_ask_and_what_is_not_sampled_leaves_no_span(
    traced: HeldFleet, collector: Collector, photos: list[Path]
) -> None:
    trace = "1" * 32
    answer = requests.post(
        f"{traced.url}/v1/jobs/search",
        files={"image": photos[1].read_bytes()},
        headers={"Prefer": "wait=10", "traceparent": f"00-{trace}-{PARENT}-00"},
        timeout=20,
    )
    assert answer.json()["status"] == "succeeded"
    with traced.client() as client:
        assert JobStore(client).get(answer.json()["id"]).trace["traceparent"].startswith(f"00-{trace}-")
    for path in ("/livez", "/readyz", "/metrics"):
        requests.get(traced.url + path, timeout=10)
    n_before = len(collector.spans)
    assert requests.get(traced.url + "/v1/index", timeout=10).ok
    eventually(lambda: len(collector.spans) > n_before, 20, "a request is traced")
    assert not collector.of_trace(trace)
    names = {span.name for _, span in collector.spans}
    assert not {name for name in names if "livez" in name or "readyz" in name or "metrics" in name}
    assert "run/lookalike.run_queued" not in names


def test_what_was_traced_last_is_sent_before_a_worker_ends(
    traced: HeldFleet, collector: Collector, photos: list[Path]
) -> None:
    trace = "2" * 32
    traced.hold("photos")
    requests.post(
        f"{traced.url}/v1/jobs/search",
        files={"image": photos[2].read_bytes()},
        headers={"traceparent": f"00-{trace}-{PARENT}-01"},
        timeout=20,
    )
    eventually(lambda: traced.n_running() == 1, 20, "it runs")
    traced.signal("held", signal.SIGTERM)
    traced.release()
    assert traced.processes["held"].wait(30) == 0
    assert "finish" in collector.tree(trace)


def test_without_tracing_opentelemetry_is_neither_needed_nor_imported(valkey_url: str, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None  # whoever imports it is told that it is not installed
from api.app import create_app
from shared.tracing import carrier, past_span, span
from worker.celery_app import app
app.loader.import_default_modules()
client = create_app().test_client()
assert client.get("/livez").status_code == 200
with span("nothing") as made:
    past_span("nothing", 0, 1)
assert made is None and carrier() == {}
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""
    ours = {**os.environ, "LOOKALIKE_HOME": str(tmp_path), "LOOKALIKE_REDIS_URL": valkey_url}
    subprocess.run([sys.executable, "-c", code], env=ours, cwd=ROOT, check=True, timeout=60)
    for command in (["-m", "worker"], ["-c", "from api.app import create_app; create_app()"]):
        missing = f"import sys, runpy; sys.modules['opentelemetry'] = None; sys.argv = {command!r}; "
        run = "runpy.run_module('worker', run_name='__main__')" if command[0] == "-m" else command[1]
        ended = subprocess.run(
            [sys.executable, "-c", missing + run],
            env={**ours, "LOOKALIKE_TRACING": "1"},
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1
        assert "OpenTelemetry is not installed: pip install 'lookalike[otel]'" in ended.stderr
