"""Write deploy/redis/users from the table of rights: python tools/redis_users.py"""

from __future__ import annotations

from pathlib import Path

from mien_shared.bus.rights import SERVICES

USERS = Path(__file__).resolve().parents[1] / "deploy/redis/users"

#: For a person who looks for the cause of a failure, and for the health check. It reads no key.
_OPERATOR = (
    "ping info dbsize slowlog|get slowlog|len latency|latest latency|doctor memory|doctor memory|stats client|list "
    "acl|log acl|whoami"
)


def users() -> str:
    """The file: one user a line. deploy/prepare replaces each @NAME@ by the SHA-256 sum of that user's password."""
    lines = ["user default reset off"]
    lines += [f"user {rights.user} reset on #@{rights.user}@ {' '.join(rights.rules())}" for rights in SERVICES]
    lines += [f"user operator reset on #@operator@ {' '.join(f'+{command}' for command in _OPERATOR.split())}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    USERS.write_text(users())
