"""The service factory: probes apart, problems as documents, metrics as text, logs as lines."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.types import Message

from mien_shared import spans
from mien_shared.http.problems import Code, Problem, describe
from mien_shared.http.service import create_service
from mien_shared.logs import JsonFormatter
from mien_shared.metrics import ServiceMetrics
from mien_shared.supervisor import Supervisor

reasons: dict[str, str] = {}


class Body(BaseModel):
    count: int


def service() -> FastAPI:
    @asynccontextmanager
    async def run(_: FastAPI, supervisor: Supervisor) -> AsyncIterator[None]:
        supervisor.check("redis", lambda: reasons.get("redis"))
        supervisor.check("device", lambda: reasons.get("device"), vital=True)
        yield

    app = create_service("trial", ServiceMetrics("trial"), run)

    @app.post("/things")
    async def things(body: Body) -> dict[str, int]:
        if body.count > 2:
            raise Problem(Code.AVATAR_BUNDLED, f"{body.count} things are too many")
        if body.count == 2:
            raise Problem(Code.FULL, "there are no things now", retry_after_s=7)
        return {"count": 1 // body.count}

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = service()
    reasons.clear()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        yield http


async def test_alive_is_not_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    reasons["redis"] = "redis does not answer"
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unready", "reasons": {"redis": "redis does not answer"}}
    assert (await client.get("/livez")).status_code == 200


async def test_what_only_a_restart_mends_is_neither_ready_nor_alive(client: httpx.AsyncClient) -> None:
    reasons["device"] = "the device thread has failed"
    for probe, status in (("/livez", "dead"), ("/readyz", "unready")):
        answer = await client.get(probe)
        assert answer.status_code == 503
        assert answer.json() == {"status": status, "reasons": {"device": "the device thread has failed"}}


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_status_a_meaning_and_its_headers(code: Code) -> None:
    answer = Problem(code, "a detail").response()
    assert answer.status_code == code.status in range(400, 600)
    assert json.loads(bytes(answer.body))["type"] == f"urn:mien:problem:{code}"
    assert code.meaning and not code.meaning.endswith(".")
    assert ("retry-after" in answer.headers) == (code.status == 503 or code is Code.NO_PUBLICATION)
    assert ("www-authenticate" in answer.headers) == (code.status == 401)


def test_a_route_is_described_by_its_codes() -> None:
    described = describe(Code.SESSION_NOT_FOUND, Code.TOKEN_MISSING, Code.TOKEN_INVALID)
    assert list(described) == [401, 404]
    assert described[404]["description"] == "`session-not-found`: no session has this id, or it has ended"
    assert described[401]["description"].count("`token-") == 2


async def test_a_service_that_has_not_started_is_not_ready() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service()), base_url="http://t") as http:
        assert (await http.get("/readyz")).json()["reasons"] == {"start": "the service is still starting"}


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "mien_build_info{" in answer.text
    assert 'service="trial"' in answer.text


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        ({"count": 3}, 409, "avatar-bundled", "3 things are too many"),
        ({"count": 2}, 503, "full", "there are no things now"),
        ({"count": "x"}, 422, "invalid-request", "body.count: "),
        ({"count": 0}, 500, "internal", "the service failed to answer; its log says why"),
    ],
)
async def test_every_error_is_a_problem_document(
    client: httpx.AsyncClient, body: dict[str, object], status: int, code: str, detail: str
) -> None:
    answer = await client.post("/things", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:mien:problem:{code}"
    assert problem["status"] == status
    assert problem["detail"].startswith(detail)
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_what_is_not_there_is_a_problem_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nowhere")).json()["type"] == "urn:mien:problem:not-found"
    assert (await client.get("/things")).json()["type"] == "urn:mien:problem:method-not-allowed"


async def test_a_client_that_goes_before_its_body_is_there_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    app = service()

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    got: list[Message] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]
    messages = iter(got)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/raw", "query_string": b"", "headers": [], "app": app}
    await app(scope, receive, send)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert sent[0]["status"] == 400


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    record = logging.makeLogRecord({"name": "mien", "levelname": "INFO", "msg": "session started", "sessions": 3})
    line = JsonFormatter("gateway").format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["service"], entry["message"], entry["sessions"]) == ("gateway", "session started", 3)


def test_an_exception_stays_within_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (type(error), error, error.__traceback__)})
    line = JsonFormatter("gateway").format(record)
    assert "\n" not in line
    assert "two\nlines" in json.loads(line)["exception"]


def test_tracing_is_off_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    spans.configure("trial")
    with spans.span("anything", parent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"):
        assert spans.traceparent() is None
