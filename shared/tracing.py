"""Traces: one from the HTTP request through the attempts at its job to their end, with OpenTelemetry.

Off, it costs nothing: OpenTelemetry is imported only where LOOKALIKE_TRACING is set. Where the spans go, and how many
are kept, is decided by OpenTelemetry's own variables, OTEL_*.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from shared.errors import CannotStart
from shared.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_OFF: AbstractContextManager[None] = nullcontext()
_DEFAULT_EXPORTER = "otlp"
_EXPORTERS = {"otlp": "otlp_proto_http"}  # whose names at OpenTelemetry say more than its variable needs to

_tracer: "Tracer | None" = None


def configure_tracing(settings: Settings, service_name: str) -> "TracerProvider | None":
    """Begin to trace, where the settings ask for it; called once by each entry point.

    Args:
        service_name: under which spans are found, unless OTEL_SERVICE_NAME says another.

    Returns:
        What instrumentations of libraries are to be given; None while tracing is off.

    Raises:
        CannotStart: OpenTelemetry is not installed, or OTEL_TRACES_EXPORTER names no exporter that is.
    """
    global _tracer  # noqa: PLW0603 - spans are made wherever something takes time
    if not settings.tracing:
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise CannotStart(
            "LOOKALIKE_TRACING is set, and OpenTelemetry is not installed: pip install 'lookalike[otel]'"
        ) from exc
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service_name}
    provider = TracerProvider(resource=Resource.create(named))
    chosen = os.environ.get("OTEL_TRACES_EXPORTER") or _DEFAULT_EXPORTER
    if chosen != "none":
        name = _EXPORTERS.get(chosen, chosen)
        found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
        if not found:
            raise CannotStart(f"OTEL_TRACES_EXPORTER={chosen}: no such exporter is installed")
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    _tracer = provider.get_tracer("lookalike")
    return provider


def span(name: str) -> AbstractContextManager[object]:
    """Time the body, as a child of the span that is going on in this thread."""
    return _tracer.start_as_current_span(name) if _tracer else _OFF


def past_span(name: str, began_ns: int, ended_ns: int) -> None:
    """Add what has taken place already, as a child of the span that is going on in this thread.

    Args:
        began_ns, ended_ns: since the epoch.
    """
    if _tracer:
        _tracer.start_span(name, start_time=began_ns).end(ended_ns)


def carrier() -> Mapping[str, str]:
    """The span that is going on in this thread, as W3C's headers `traceparent` and `tracestate`; empty without one."""
    if _tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    # Not baggage: clients send what they like with it, and this goes into the job's record.
    TraceContextTextMapPropagator().inject(headers)
    return headers
