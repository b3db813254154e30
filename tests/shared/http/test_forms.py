"""HEAD has the headers of the GET, and one slash at the end of a path changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from mien_shared.http.forms import without_last_slash
from mien_shared.http.service import create_service
from mien_shared.metrics import ServiceMetrics
from mien_shared.supervisor import Supervisor


def service() -> FastAPI:
    @asynccontextmanager
    async def run(_: FastAPI, __: Supervisor) -> AsyncIterator[None]:
        yield

    app = create_service("trial", ServiceMetrics("trial"), run, own_head=["/own/"])

    @app.get("/things/{name}")
    async def thing(name: str) -> Response:
        return Response(name, headers={"X-Name": name})

    @app.post("/things")
    async def create() -> str:
        return "made"

    @app.head("/own/{name}")
    async def own(name: str) -> Response:
        return Response(headers={"X-Own": name})

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = service()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http,
    ):
        yield http


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/things/one", "/openapi.json", "/docs"])
async def test_head_has_the_headers_of_the_get_and_no_body(client: httpx.AsyncClient, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.headers, head.content) == (200, got.headers, b"")


async def test_metrics_answer_head(client: httpx.AsyncClient) -> None:
    head = await client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_a_route_with_its_own_head_keeps_it(client: httpx.AsyncClient) -> None:
    assert (await client.head("/own/a")).headers["x-own"] == "a"


async def test_what_is_not_there_has_no_head_either(client: httpx.AsyncClient) -> None:
    head = await client.head("/nowhere")
    assert (head.status_code, head.content) == (404, b"")
    refused = await client.request("PUT", "/things/one")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("GET", "/things/one"), ("POST", "/things")])
async def test_a_slash_at_the_end_changes_nothing(client: httpx.AsyncClient, method: str, path: str) -> None:
    plain, slashed = await client.request(method, path), await client.request(method, f"{path}/")
    assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content)
    assert plain.is_success


@pytest.mark.parametrize(("path", "routed"), [("/", "/"), ("/a/", "/a"), ("/a", "/a"), ("/a//", "/a/"), ("", "")])
def test_one_slash_is_taken_off(path: str, routed: str) -> None:
    scope = {"type": "http", "path": path}
    assert without_last_slash(scope)["path"] == routed
    assert scope["path"] == path, "the server's own scope stays as it was"
