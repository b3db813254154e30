"""`python -m mien_signaling`: the service, with settings from its environment."""

from __future__ import annotations

import sys

from mien_shared.http.service import serve
from mien_signaling.app import create_app
from mien_signaling.media_port import MediaPortUnavailable
from mien_signaling.settings import SignalingSettings


def main() -> None:
    settings = SignalingSettings()
    try:
        app = create_app(settings)
    except MediaPortUnavailable as error:
        sys.exit(f"signaling cannot start: {error}")
    serve("signaling", app, settings)


if __name__ == "__main__":
    main()
