"""A viewer for a network namespace: it watches until its standard input ends, then prints what it saw as JSON.

python remote_viewer.py WHEP_URL TOKEN FACE_X FACE_Y FACE_SIZE
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

from failure.eye import Eye

from mien_client.viewer import Viewer
from mien_shared.avatars import FaceBox


async def main(whep_url: str, token: str, x: str, y: str, size: str) -> None:
    async with Viewer(whep_url, token) as viewer:
        eye = Eye(viewer, FaceBox(x=int(x), y=int(y), size=int(size)))
        await eye.wait_for_speaker(0.0, within_s=20)
        print("watching", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        json.dump({"connected": eye.is_connected, "sights": [asdict(sight) for sight in eye.sights]}, sys.stdout)
        await eye.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
