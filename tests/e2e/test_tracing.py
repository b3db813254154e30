"""Traces of session setup reach a collector over OTLP, gateway and generator in one trace."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mien_client.api import MienClient
from mien_client.demo import BUNDLED_AVATAR
from mien_client.launcher import Stack, StackOptions
from mien_client.viewer import Viewer

pytestmark = [pytest.mark.e2e, pytest.mark.long]


class Collector:
    """A collector that stores (service, span name, trace id) of every span."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, bytes]] = []

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.name"], span.name, span.trace_id) for span in scope.spans]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield collector
    server.shutdown()


async def test_one_session_is_one_trace_through_gateway_and_generator(collector: Collector) -> None:
    async with Stack(StackOptions(gateway_port=0, signaling_port=0)) as stack, MienClient(stack.url) as mien:
        session = await mien.create_session(BUNDLED_AVATAR)
        async with Viewer(session.whep_url, session.watch_token):
            pass
        async with asyncio.timeout(10):
            while {"create session", "start session", "answer an offer"} - {name for _, name, _ in collector.spans}:
                await asyncio.sleep(0.05)
    traces = {name: trace for _, name, trace in collector.spans}
    services = {name: service for service, name, _ in collector.spans}
    assert traces["create session"] == traces["start session"] == traces["load avatar"]
    assert services["create session"] == "mien-gateway"
    assert services["start session"] == "mien-generator"
    assert services["answer an offer"] == "mien-signaling"
