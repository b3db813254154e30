"""OpenTelemetry traces of session setup: they show the time between a request for a session and its first frame.

Tracing is off unless OTEL_EXPORTER_OTLP_ENDPOINT is set. It needs the extra `mien-shared[tracing]`. Spans contain no
face, no token and no SDP. Metrics and the frame trace, not spans, hold the times of single frames: thirty spans a
second for every speaker would cost more than the frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TracingUnavailable(RuntimeError):
    """Traces are requested, but OpenTelemetry is not installed."""


class _State:
    tracer: Tracer | None = None


def configure(service: str) -> None:
    """Export this process's spans by OTLP over HTTP if an endpoint is set; raises TracingUnavailable."""
    if not os.environ.get(_ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable(
            f"{_ENDPOINT} is set, but OpenTelemetry is not installed: pip install 'mien-shared[tracing]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"mien-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _State.tracer = provider.get_tracer("mien")


@contextmanager
def span(name: str, parent: str | None = None) -> Iterator[None]:
    """A span around a block. parent: the `traceparent` (W3C Trace Context) of a span in another process."""
    if _State.tracer is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    with _State.tracer.start_as_current_span(name, context=context):
        yield


def traceparent() -> str | None:
    """The current span in W3C Trace Context form, for a message to another process; None while tracing is off."""
    if _State.tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
