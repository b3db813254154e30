"""The `mien` command. Packages that are installed beside this one add their own sub-commands by entry points:
"mien.commands" for `mien NAME`, "mien.bench" for `mien bench NAME`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, TypeVar

import click
from av.error import FFmpegError

from mien_client import watching
from mien_client.api import MienError, Unreachable
from mien_client.demo import BUNDLED_AVATAR, DemoOptions, run_demo
from mien_client.landmarks import LandmarksError
from mien_client.launcher import LaunchError, Stack, StackOptions
from mien_client.live import SendOptions
from mien_client.live import send as send_source
from mien_client.outgoing import SMOOTHING
from mien_client.speaking import DEMO_TRACK
from mien_client.uplink import UplinkClosed
from mien_client.viewer import WhepError
from mien_encoder.keypoints import EncoderFileError
from mien_shared.bus.embedded_redis import EmbeddedRedisError
from mien_shared.wire.motion import MotionPacketError
from mien_shared.wire.track import MotionTrackError

T = TypeVar("T")

#: What a user can do something about: shown as one line, without a traceback.
_KNOWN_ERRORS = (
    EmbeddedRedisError,
    EncoderFileError,
    FFmpegError,
    FileNotFoundError,
    LandmarksError,
    LaunchError,
    MienError,
    MotionPacketError,
    MotionTrackError,
    Unreachable,
    UplinkClosed,
    WhepError,
)

_INTERRUPTED = 130  # 128 + SIGINT, what a shell expects


class _EntryPointGroup(click.Group):
    """A group whose commands come from entry points, loaded when they are called."""

    def __init__(self, *args: Any, entry_point_group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._points = {point.name: point for point in entry_points(group=entry_point_group)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._points})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._points:
            command: click.Command = self._points[cmd_name].load()
            return command
        return super().get_command(ctx, cmd_name)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end or to SIGINT or SIGTERM, which unwind it; known errors become one line on standard error."""

    async def guarded() -> T:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        sys.exit(_INTERRUPTED)
    except _KNOWN_ERRORS as error:
        raise click.ClickException(str(error)) from error


@click.group(cls=_EntryPointGroup, entry_point_group="mien.commands")
@click.version_option(version("mien-client"), prog_name="mien")
def main() -> None:
    """Mien: avatars that speak, at 28.8 kbit/s."""


@main.group(cls=_EntryPointGroup, entry_point_group="mien.bench")
def bench() -> None:
    """Measure one stage beside what a user would have instead."""


def _say(text: str) -> None:
    click.echo(text, err=True)


_PORT = click.option("--port", default=8080, show_default=True, help="Of the page and the REST API; 0: any free one.")
_SIGNALING_PORT = click.option("--signaling-port", default=8081, show_default=True, help="Of WHEP; 0: any free one.")
_BACKEND = click.option(
    "--backend",
    "--engine",  # its name before
    "backend",
    type=click.Choice(["auto", "onnx", "torch", "warp"]),
    default="auto",
    show_default=True,
    help="What makes the faces: the network on ONNX Runtime or torch, or warp, which needs no network.",
)
_WEIGHTS = click.option(
    "--weights", type=click.Path(exists=True, path_type=Path), help="Of the network, not the shipped."
)


def _stack(port: int, signaling_port: int, backend: str, weights: Path | None, data: Path | None) -> StackOptions:
    environment = {"MIEN_FACE_BACKEND": backend} | ({"MIEN_WEIGHTS": str(weights)} if weights else {})
    return StackOptions(gateway_port=port, signaling_port=signaling_port, avatar_folder=data, generator_env=environment)


@main.command()
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End by itself after so long.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write what a viewer saw to this MP4.")
@click.option("--avatar", default=BUNDLED_AVATAR, show_default=True, help="An avatar id, or a picture to upload.")
@click.option(
    "--motion", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=DEMO_TRACK, help="A motion track."
)
@click.option("--json", "as_json", is_flag=True, help="Print what a viewer received: frames, latency, bit rates.")
@_PORT
@_SIGNALING_PORT
@_BACKEND
@_WEIGHTS
def demo(
    seconds: float | None,
    record: Path | None,
    avatar: str,
    motion: Path,
    as_json: bool,
    port: int,
    signaling_port: int,
    backend: str,
    weights: Path | None,
) -> None:
    """Run everything on this machine with a recorded speaker, and print a page to open."""
    stack = _stack(port, signaling_port, backend, weights, None)
    options = DemoOptions(avatar, motion, seconds, record, as_json, stack)
    report = run(run_demo(options, _say))
    if as_json:
        click.echo(json.dumps(report))


@main.command()
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path("var"), help="Where avatars are kept."
)
@_PORT
@_SIGNALING_PORT
@_BACKEND
@_WEIGHTS
@click.option("--generators", type=click.IntRange(min=1), default=1, show_default=True, help="How many to start.")
def up(data: Path, port: int, signaling_port: int, backend: str, weights: Path | None, generators: int) -> None:
    """Run the services on this machine and wait for speakers."""

    async def serve() -> None:
        options = _stack(port, signaling_port, backend, weights, data.resolve() / "avatars")
        async with Stack(replace(options, generators=generators)) as stack:
            _say(f"Mien is running at {stack.url} (API at {stack.url}/docs); Ctrl-C ends it.")
            await stack.watch()

    run(serve())


@main.command()
@click.argument("source")
@click.option("--avatar", default=BUNDLED_AVATAR, show_default=True, help="An avatar id, or a picture to upload.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the gateway.")
@click.option(
    "--api-key",
    envvar="MIEN_API_KEY",
    help="An operator's, where the service asks for one. Better in MIEN_API_KEY: others see a command's arguments.",
)
@click.option("--loop", is_flag=True, help="Send a clip over and over.")
@click.option(
    "--tracker",
    type=click.Choice(["encoder", "landmarks"]),
    default="encoder",
    show_default=True,
    help="What finds the keypoints; landmarks: the tool that `make landmarks` installs.",
)
@click.option("--smoothing", type=click.Choice(list(SMOOTHING)), default="one-euro", show_default=True)
@click.option("--no-judgement", is_flag=True, help="Send extreme poses too, instead of a default motion.")
def send(
    source: str,
    avatar: str,
    url: str,
    api_key: str | None,
    loop: bool,
    tracker: str,
    smoothing: str,
    no_judgement: bool,
) -> None:
    """Speak: send the face in SOURCE, a clip, a .motion track, or `camera`."""
    options = SendOptions(source, avatar, url, api_key, loop, tracker, smoothing, judged=not no_judgement)
    run(send_source(options, _say))


@main.command()
@click.argument("url")
@click.option("--token", help="A watch token, where the service asks for one.")
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="Write what is seen to this MP4.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End by itself after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print frames, latency and bit rate at the end.")
def watch(url: str, token: str | None, record: Path | None, seconds: float | None, as_json: bool) -> None:
    """Watch a session: URL is its WHEP address, or the watch page's with #session=."""
    report = run(watching.watch(url, token, record, seconds, _say))
    if as_json:
        click.echo(json.dumps(report))
