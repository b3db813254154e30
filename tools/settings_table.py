"""Print the table of settings for docs/operating.md from the settings classes: python tools/settings_table.py"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from mien_gateway.settings import GatewaySettings
from mien_generator.settings import GeneratorSettings
from mien_shared.settings import ServiceSettings
from mien_signaling.settings import SignalingSettings

SERVICES: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "generator": GeneratorSettings,
    "signaling": SignalingSettings,
}


def table() -> str:
    """Every setting of every service as a Markdown table, with the settings of all services first."""
    lines = ["| setting | service | default | meaning |", "|---|---|---|---|"]
    lines += [_line(name, field, "all") for name, field in ServiceSettings.model_fields.items()]
    for service, settings in SERVICES.items():
        own = {name: field for name, field in settings.model_fields.items() if _is_own(name, field)}
        lines += [_line(name, field, service) for name, field in own.items()]
    return "\n".join(lines) + "\n"


def _is_own(name: str, field: FieldInfo) -> bool:
    shared = ServiceSettings.model_fields.get(name)
    return shared is None or shared.default != field.default


def _line(name: str, field: FieldInfo, service: str) -> str:
    variable = "REDIS_URL" if name == "redis_url" else f"MIEN_{name.upper()}"
    return f"| `{variable}` | {service} | {_default(field)} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ([], "", ()):
        return ""
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    sys.stdout.write(table())
