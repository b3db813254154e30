"""Open the watch page in Chromium, in the compose trial's network namespace. Prints one JSON object.

Needs MIEN_CHROMIUM. Reads the page's address from standard input, because it contains a watch token.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from e2e.browser import browser_page, reach

_WITHIN_S = 30.0
_PLAYING_S = 6.0


async def main(address: str) -> None:
    messages: list[str] = []
    async with browser_page(os.environ["MIEN_CHROMIUM"]) as page, asyncio.timeout(_WITHIN_S + _PLAYING_S):
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text) if "Security Policy" in message.text else None)
        await page.goto(address)
        await reach(page, "ready")
        await page.click("#play")
        await reach(page, "playing")
        while not await page.evaluate("Boolean(window.mien.stats)"):
            await asyncio.sleep(0.1)
        before = int(await page.evaluate("window.mien.stats.framesDecoded"))
        await asyncio.sleep(_PLAYING_S)
        stats = await page.evaluate("({...window.mien.stats})")
    seen = {name: stats[name] for name in ("width", "height", "codec", "latencyMs")}
    fps = round((stats["framesDecoded"] - before) / _PLAYING_S, 1)
    sys.stdout.write(json.dumps(seen | {"fps": fps, "errors": messages}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.readline().strip()))
