"""`python -m mien_signaling`: the service, with settings from its environment."""

from __future__ import annotations

from mien_shared.http.service import serve
from mien_signaling.app import create_app
from mien_signaling.settings import SignalingSettings


def main() -> None:
    settings = SignalingSettings()
    serve("signaling", create_app(settings), settings)


if __name__ == "__main__":
    main()
