"""`python -m mien_gateway`: the gateway as a process."""

from __future__ import annotations

from mien_gateway.app import create_app
from mien_gateway.read_ahead import ReadAheadProtocol
from mien_gateway.room_talk import MAX_MESSAGE_BYTES
from mien_gateway.settings import GatewaySettings
from mien_shared.http.service import serve

if __name__ == "__main__":
    settings = GatewaySettings()
    # The longest message of any route; an uplink's are shorter, which `uplinks.py` checks.
    serve("gateway", create_app(settings), settings, ws_max_bytes=MAX_MESSAGE_BYTES, ws_protocol=ReadAheadProtocol)
