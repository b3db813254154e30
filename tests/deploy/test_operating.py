"""docs/operating.md is up to date: it lists every setting as the settings classes define it, and each can be set."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from mien_shared.settings import ServiceSettings

ROOT = Path(__file__).parents[2]


def test_the_table_of_settings_is_the_settings() -> None:
    table = runpy.run_path(str(ROOT / "tools/settings_table.py"))["table"]()
    text = (ROOT / "docs/operating.md").read_text()
    assert table in text, "run `python tools/settings_table.py` and put its table into docs/operating.md"
    assert not [line for line in table.splitlines() if line.endswith("|  |")], "a setting has no description"


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "deploy/k8s/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


SERVICES: dict[str, type[ServiceSettings]] = runpy.run_path(str(ROOT / "tools/settings_table.py"))["SERVICES"]
SECRET = "9f3kQ7zLw2xB8mVt5RyHc1JpDs6GuNa4"
NEEDED = {"MIEN_TOKEN_SECRET": SECRET, "MIEN_TURN_SECRET": SECRET, "MIEN_API_KEYS": SECRET}
#: What an operator would write where the kind of the setting does not say it.
TEXTS = {
    "MIEN_API_KEYS": f"# two keys\n{SECRET[::-1]},{SECRET}",
    "MIEN_AVATAR_STORE": "s3://bucket/avatars",
    "MIEN_AVATAR_UNUSED_S": "3600",
    "MIEN_CAPACITY": "3",
    "MIEN_CORES": "2.5",
    "MIEN_CORS_ORIGINS": '["https://page.example"]',
    "MIEN_DEVICE": "cuda:1",
    "MIEN_HOST": "::",
    "MIEN_MEDIA_PORT": "20000",
    "MIEN_ICE_SERVERS": '[{"urls": ["stun:stun.example"]}]',
    "MIEN_PARENT_PID": "17",
    "MIEN_PUBLIC_IP": "192.0.2.1",
    "MIEN_PUBLIC_URL": "https://mien.example",
    "MIEN_SFU_WHIP_URL": "https://sfu.example/whip/{session_id}",
    "MIEN_SIGNALING_URL": "https://media.example",
    "MIEN_TOKEN_SECRET": SECRET[::-1],
    "MIEN_TOKEN_SECRETS_OLD": SECRET[::-1],
    "MIEN_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1",
    "MIEN_TURN_SECRET": SECRET[::-1],
    "MIEN_TURN_URLS": '["turn:turn.example"]',
    "MIEN_WORKERS": "3",
    "MIEN_WEB_ROOT": str(ROOT / "clients/web/mien_web"),
    "REDIS_URL": "redis://redis.example",
}


def documented() -> list[tuple[str, str]]:
    """(service, variable) of every row of the table in docs/operating.md; "all" stands for every service."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\w+) \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    return [(one, name) for name, service in rows for one in (SERVICES if service == "all" else [service])]


def text_for(variable: str, field: FieldInfo) -> str:
    """A value of this setting that is not its default, as an operator writes it."""
    kind, default = field.annotation, field.default
    if variable in TEXTS:
        return TEXTS[variable]
    if get_origin(kind) is Literal:
        return str(next(value for value in get_args(kind) if value != default))
    if kind is bool:
        return str(not default).lower()
    if kind in {int, float}:
        top = next((limit.le for limit in field.metadata if hasattr(limit, "le")), float("inf"))
        return str(default + 1 if default + 1 <= top else default - 1)
    return f"/somewhere/{variable.lower()}"  # a path


def test_every_setting_is_documented() -> None:
    rows = documented()
    for service, settings in SERVICES.items():
        ours = {"REDIS_URL" if name == "redis_url" else f"MIEN_{name.upper()}" for name in settings.model_fields}
        assert {name for one, name in rows if one == service} == ours


@pytest.mark.parametrize(("service", "variable"), sorted(set(documented())))
def test_a_documented_setting_is_set_through_the_environment(
    monkeypatch: pytest.MonkeyPatch, service: str, variable: str
) -> None:
    for name in (name for _, name in documented()):
        monkeypatch.delenv(name, raising=False)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    settings = SERVICES[service]
    name = variable.removeprefix("MIEN_").lower()
    before = getattr(settings(), name)
    text = text_for(variable, settings.model_fields[name])
    monkeypatch.setenv(variable, text)
    after: Any = getattr(settings(), name)
    assert after != before, f"{variable}={text} changes nothing"
    if isinstance(after, int | float) and not isinstance(after, bool):
        assert after == float(text)
    elif isinstance(after, str | Path):
        assert str(after) == text


def test_a_face_size_that_no_network_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_TOKEN_SECRET", SECRET)
    for text in ("300", "256.5", "big", ""):
        monkeypatch.setenv("MIEN_FACE_SIZE", text)
        with pytest.raises(ValueError, match="face_size"):
            SERVICES["generator"]()
