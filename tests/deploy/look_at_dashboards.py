"""Check the dashboards with real data: `python tests/deploy/look_at_dashboards.py [--seconds 180] [--out FOLDER]`.

Runs all of Mien, with speakers and viewers that join and leave, and a real Prometheus that scrapes it. Then it runs the
queries of all panels, draws the results as one picture per dashboard, and lists the panels that stayed empty. Needs the
`prometheus` program (Debian package `prometheus`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import matplotlib as mpl
import websockets

from mien_client.api import MienClient, authorization
from mien_client.demo import BUNDLED_AVATAR, speaking_session
from mien_client.launcher import HOST, Stack, StackOptions, free_port
from mien_client.speaking import DEMO_TRACK, play
from mien_client.viewer import Viewer
from mien_shared.wire.track import MotionTrack

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "generator", "signaling")
_SCRAPE_INTERVAL_S = 2
_RATE_INTERVAL = "10s"
_PICTURE = ROOT / "services/gateway/mien_gateway/bundled/mien.png"

#: (legend, [(unix seconds, value)]); a heatmap's legend is its bucket.
Series = list[tuple[str, list[tuple[float, float]]]]


def configuration(stack: Stack) -> str:
    """Prometheus' configuration as JSON, a subset of YAML. The job names are those used in deploy/."""
    jobs = [
        {
            "job_name": f"mien-{name}",
            "static_configs": [{"targets": [stack.service_url(name).removeprefix("http://")]}],
        }
        for name in SERVICES
    ]
    interval = f"{_SCRAPE_INTERVAL_S}s"
    return json.dumps(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(ROOT / "deploy/prometheus/rules/*.yml")],
            "scrape_configs": jobs,
        }
    )


@contextlib.asynccontextmanager
async def prometheus(stack: Stack) -> AsyncIterator[str]:
    """Run a Prometheus that scrapes this stack; yields its URL."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("the program `prometheus` is not installed: apt-get install prometheus")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mien-prometheus-") as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(configuration(stack))
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={HOST}:{port}",
            "--log.level=warn",
        )
        try:
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()
            await process.wait()


async def speak(mien: MienClient, stay_s: float, away_s: float) -> None:
    """A speaker that joins and leaves, and a viewer that stays half as long."""
    track = MotionTrack.load(DEMO_TRACK)
    while True:
        async with speaking_session(mien, BUNDLED_AVATAR) as (session, uplink), asyncio.TaskGroup() as group:
            speaker = group.create_task(play(track, uplink))
            await watch(session.whep_url, session.watch_token, stay_s / 2)
            await asyncio.sleep(stay_s / 2)
            speaker.cancel()
            await asyncio.sleep(1.0)  # the uplink has stalled
        await asyncio.sleep(away_s)


async def watch(url: str, token: str, seconds: float) -> None:
    async with Viewer(url, token) as viewer:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for _ in viewer.frames():
                    pass


async def misbehave(mien: MienClient) -> None:
    """Send invalid packets and upload an avatar every few seconds."""
    while True:
        await mien.upload_avatar(_PICTURE, "drawn")
        session = await mien.create_session(BUNDLED_AVATAR)
        headers = authorization(session.token)
        async with websockets.connect(session.uplink_url, additional_headers=headers, proxy=None) as socket:
            for _ in range(10):
                await socket.send(b"no packet")
        await mien.end_session(session.session_id, session.token)
        await asyncio.sleep(8)


async def live(stack: Stack, seconds: float) -> None:
    """Run the calls that the dashboards shall show."""
    async with MienClient(stack.url) as mien:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(speak(mien, stay_s=40, away_s=5))
                group.create_task(speak(mien, stay_s=15, away_s=8))
                group.create_task(misbehave(mien))


def filled_in(expr: str, generator: str) -> str:
    """A panel's query with its variables replaced, as Grafana replaces them."""
    return expr.replace("$__rate_interval", _RATE_INTERVAL).replace("$instance", generator)


async def answers(http: httpx.AsyncClient, expr: str, legend: str, start_s: float, end_s: float) -> Series:
    """Prometheus' result for one query, without series that have no number."""
    parameters = {"query": expr, "start": str(start_s), "end": str(end_s), "step": str(_SCRAPE_INTERVAL_S)}
    body = (await http.get("/api/v1/query_range", params=parameters)).json()
    if body["status"] != "success":
        raise SystemExit(f"{expr}\n{body['error']}")
    found: Series = []
    for result in body["data"]["result"]:
        name = legend
        for label, value in result["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        points = [(at_s - start_s, float(value)) for at_s, value in result["values"] if value not in {"NaN", "+Inf"}]
        if points:
            found.append((name, points))
    return found


def draw(axes: Axes, panel: dict[str, object], series: Series) -> None:
    axes.set_title(str(panel["title"]), fontsize=9, loc="left", color="black" if series else "red")
    axes.tick_params(labelsize=6)
    if panel["type"] == "stat":
        axes.axis("off")
        words = [f"{name} {points[-1][1]:.4g}".strip() for name, points in series]
        axes.text(0.5, 0.4, "\n".join(words) or "no data", ha="center", fontsize=14)
        return
    if panel["type"] == "heatmap":
        _draw_heatmap(axes, series)
        return
    defaults = panel["fieldConfig"]["defaults"]  # type: ignore[index]
    base: dict[float, float] = {}
    for name, points in series:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        if defaults["custom"]["stacking"]["mode"] == "normal":
            below = [base.get(x, 0.0) for x in xs]
            base |= {x: low + y for x, low, y in zip(xs, below, ys, strict=True)}
            axes.fill_between(xs, below, [low + y for low, y in zip(below, ys, strict=True)], label=name, alpha=0.5)
        else:
            axes.plot(xs, ys, label=name, linewidth=1)
    axes.set_ylim(bottom=0)
    if series:
        axes.legend(fontsize=5, loc="upper left", ncols=2, framealpha=0.4)
    axes.set_ylabel(defaults["unit"], fontsize=6)


def _draw_heatmap(axes: Axes, series: Series) -> None:
    rows = sorted((float(bucket), points) for bucket, points in series)
    below: dict[float, float] = {}
    for height, (bucket, points) in enumerate(rows):
        shares = [(x, y - below.get(x, 0.0)) for x, y in points]
        below = dict(points)
        axes.scatter([x for x, _ in shares], [height] * len(shares), c=[y for _, y in shares], cmap="Blues", marker="s")
        axes.text(0, height, f"{bucket:g}", fontsize=5, va="center", ha="right")
    axes.set_yticks([])


async def look(url: str, start_s: float, end_s: float, generator: str, out: Path) -> list[str]:
    """Draw every dashboard into `out`. Returns the queries without a result, with their panels."""
    empty: list[str] = []
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
            dashboard = json.loads(path.read_text())
            panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
            bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
            figure = plt.figure(figsize=(24, bottom * 0.42), dpi=70)
            figure.suptitle(dashboard["title"])
            for panel in panels:
                place = panel["gridPos"]
                box = ((place["x"] + 0.6) / 24, 1 - (place["y"] + place["h"] - 1.2) / bottom)
                axes = figure.add_axes((*box, (place["w"] - 1.0) / 24, (place["h"] - 2.4) / bottom))
                series: Series = []
                for target in panel["targets"]:
                    expr = filled_in(target["expr"], generator)
                    found = await answers(http, expr, target["legendFormat"], start_s, end_s)
                    if not found:
                        empty.append(f"{dashboard['title']} / {panel['title']}: {expr}")
                    series += found
                draw(axes, panel, series)
            figure.savefig(out / f"{path.stem}.png")
            plt.close(figure)
        rules = (await http.get("/api/v1/rules")).json()["data"]["groups"]
        empty += [
            f"rule {rule['name']}: {rule['lastError']}"
            for group in rules
            for rule in group["rules"]
            if rule["health"] != "ok"
        ]
        firing = (await http.get("/api/v1/alerts")).json()["data"]["alerts"]
        print("alerts:", ", ".join(f"{alert['labels']['alertname']} ({alert['state']})" for alert in firing) or "none")
    return empty


async def main(seconds: float, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    async with Stack(StackOptions(gateway_port=0, signaling_port=0)) as stack, prometheus(stack) as url:
        start_s = time.time()
        await live(stack, seconds)
        generator = stack.service_url("generator").removeprefix("http://")
        empty = await look(url, start_s, time.time(), generator, out)
    print(f"pictures written to {out}")
    for line in empty:
        print(f"EMPTY {line}")
    return 1 if empty else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir(), "mien-dashboards"))
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.seconds, options.out)))
