#!/usr/bin/env bash
# opentelemetry-sdk 1.45.1: `force_flush()` says True when no span has arrived anywhere.
#
# Expected: it returns False when the spans could not be handed over in time, so that a job of a few seconds can see, or
# a test can assert, that its trace is complete; what was not taken stays in the queue for the next flush, up to its limit.
# Seen: the batch processor looks at neither the exporter's answer nor its own time limit: with nobody listening it
# returns True, and so does the provider. The batch is gone: after the collector has come up, another flush sends nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'opentelemetry-sdk==1.45.1' 'opentelemetry-exporter-otlp-proto-http==1.45.1'
cat > flush.py <<'PY'
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

logging.disable()
received = []


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Exporter(OTLPSpanExporter):
    answers: list[SpanExportResult] = []

    def export(self, spans):
        self.answers.append(super().export(spans))
        return self.answers[-1]


server = HTTPServer(("127.0.0.1", 0), Collector, bind_and_activate=False)
server.server_bind()  # the port is taken and refuses until `server_activate`
url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint=url, timeout=1), schedule_delay_millis=60_000))
tracer = provider.get_tracer("jobs")
tracer.start_span("while nobody listens").end()
away = provider.force_flush(timeout_millis=2000)
server.server_activate()
threading.Thread(target=server.serve_forever, daemon=True).start()
again, arrived_late = provider.force_flush(), len(received)
tracer.start_span("now").end()
up, arrived = provider.force_flush(), len(received)
provider.shutdown()
server.shutdown()
print(f"exporter's answers: {[answer.name for answer in Exporter.answers]}")
print(f"force_flush with nobody listening {away}; once the collector is up {again}, batches received {arrived_late}")
print(f"a span after that: force_flush {up}, batches received {arrived}")
assert [answer.name for answer in Exporter.answers] == ["FAILURE", "SUCCESS"] and (arrived_late, arrived) == (0, 1)
assert away is again is up is True, "changed"
PY
timeout 60 venv/bin/python flush.py
