"""Traces in a worker: each task goes on with the trace of the request that its job was submitted by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.jobs.celery_config import OLD_RUN_QUEUED, RUN_QUEUED
from shared.settings import Settings
from shared.tracing import configure_tracing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


def trace_tasks(settings: Settings) -> None:
    """Make a span of every task, where tracing is on.

    Raises:
        CannotStart: as `configure_tracing`.
    """
    provider = configure_tracing(settings, "lookalike-worker")
    if provider is None:
        return
    from celery import signals
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    provider.sampler = _without_tokens(provider.sampler)
    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    instrumentor.instrument(tracer_provider=provider)
    # Messages carry the trace of their job already. What it would put there instead is the trace of whoever publishes,
    # which need not be the job's; and its span goes on for ever in a thread whose message Redis does not take.
    signals.before_task_publish.disconnect(instrumentor._trace_before_publish)
    signals.after_task_publish.disconnect(instrumentor._trace_after_publish)


def _without_tokens(sampler: "Sampler") -> "Sampler":
    """Leave out the task behind a token: it lasts as long as there is work, and each job that it runs has a span."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

    tokens = {f"run/{task}" for task in (RUN_QUEUED, OLD_RUN_QUEUED)}

    class WithoutTokens(Sampler):
        def should_sample(
            self,
            parent_context: "Context | None",
            trace_id: int,
            name: str,
            kind: "SpanKind | None" = None,
            attributes: "Attributes" = None,
            links: "Sequence[Link] | None" = None,
            trace_state: "TraceState | None" = None,
        ) -> "SamplingResult":
            asked = ALWAYS_OFF if name in tokens else sampler
            return asked.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

        def get_description(self) -> str:
            return f"WithoutTokens{{{sampler.get_description()}}}"

    return WithoutTokens()
