"""What protects a demo on loopback from other sites' pages in the same browser, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from integration.callers import now_ms
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mien_shared.bus.connection import open_redis
from mien_shared.bus.embedded_redis import EmbeddedRedis
from mien_shared.bus.messages import SessionRecord
from mien_shared.bus.registry import Registry
from mien_shared.http.tokens import SPEAKER_GRANTS, TokenIssuer
from mien_signaling.app import create_app as create_signaling
from mien_signaling.settings import SignalingSettings

pytestmark = pytest.mark.integration

SECRET = "a secret of more than thirty-two bytes"
EVIL = "http://evil.example"
PICTURE = {"image": ("a", b"hello"), "consent": (None, "drawn")}


async def refusal(asking: Any) -> tuple[int, str]:
    answer = await asking
    return answer.status_code, answer.json()["type"].removeprefix("urn:mien:problem:")


async def test_a_page_of_another_site_reads_and_changes_nothing(start_gateway: Any) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[])
    rebound = {"Host": f"evil.example:{gateway.url.rpartition(':')[2]}"}
    for path in ("/v1/sessions", "/v1/avatars", "/v1/ice-servers", "/readyz", "/openapi.json"):
        assert await refusal(gateway.anyone.get(path, headers=rebound)) == (421, "misdirected-request")
    assert await refusal(gateway.anyone.post("/v1/avatars", files=PICTURE, headers=rebound)) == (
        421,
        "misdirected-request",
    )
    foreign = {"Origin": EVIL}
    for asking in (
        gateway.anyone.post("/v1/avatars", files=PICTURE, headers=foreign),
        gateway.anyone.post("/v1/sessions", json={"avatar_id": "someone"}, headers=foreign),
        gateway.anyone.delete("/v1/avatars/someone", headers=foreign),
    ):
        assert await refusal(asking) == (403, "foreign-origin")
    assert (await gateway.anyone.get("/v1/avatars/someone")).status_code == 200
    for origin in (gateway.url, gateway.settings.public_url):
        ours = await gateway.anyone.post("/v1/avatars", files=PICTURE, headers={"Origin": origin})
        assert ours.status_code == 415, "it was looked at"


async def test_an_uplink_from_another_site_is_refused(start_gateway: Any, redis_server: EmbeddedRedis) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[])
    async with open_redis(redis_server.url) as redis:
        await Registry(redis).keep_alive(SessionRecord(session_id="s", avatar_id="a", created_at_ms=now_ms()))
    url = f"ws{gateway.url.removeprefix('http')}/v1/sessions/s/uplink"
    token = {"Authorization": f"Bearer {TokenIssuer(SECRET).issue('s', SPEAKER_GRANTS)}"}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers=token | {"Origin": EVIL}, proxy=None):
            pass
    assert refused.value.response.status_code == 403
    async with connect(f"{url}/", additional_headers=token | {"Origin": gateway.url}, proxy=None):
        pass  # with a slash at the end, too


async def test_outside_demo_mode_names_and_origins_are_free(start_gateway: Any) -> None:
    gateway = await start_gateway()
    headers = {"Host": "mien.example", "Origin": EVIL}
    assert (await gateway.http.post("/v1/avatars", files=PICTURE, headers=headers)).status_code == 415


async def test_signaling_is_guarded_as_well(redis_server: EmbeddedRedis, run_app: Any, start_gateway: Any) -> None:
    gateway = await start_gateway(demo_open=True, api_keys=[])
    settings = SignalingSettings.model_validate(
        {
            "redis_url": redis_server.url,
            "token_secret": SECRET,
            "demo_open": True,
            "cors_origins": ["http://127.0.0.1:8080"],
        }
    )
    url = await run_app(create_signaling(settings))
    offer = {"Content-Type": "application/sdp"}

    async def join(**headers: str) -> tuple[int, str]:
        return await refusal(gateway.anyone.post(f"{url}/v1/whep/s", content="v=0", headers=offer | headers))

    assert await join(Host="evil.example") == (421, "misdirected-request")
    assert await join(Origin=EVIL) == (403, "foreign-origin")
    assert (await join(Origin="http://127.0.0.1:8080"))[0] == 422, "the offer was looked at"
    assert (await join())[0] == 422
