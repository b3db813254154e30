"""The `mien` command. Other installed packages add sub-commands through entry points: "mien.commands" for `mien NAME`,
"mien.bench" for `mien bench NAME`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, TypeVar

import click
from av.error import FFmpegError

from mien_client import tracing, watching
from mien_client.api import BadAddress, BadToken, MienClient, MienError, NotMien, Unreachable
from mien_client.demo import BUNDLED_AVATAR, DemoOptions, StatedConsent, run_demo
from mien_client.joining import JoinOptions
from mien_client.joining import join as join_room
from mien_client.landmarks import LandmarksError
from mien_client.launcher import LaunchError, Stack, StackOptions
from mien_client.live import CAMERA, SendOptions
from mien_client.live import send as send_source
from mien_client.meeting import MOST_PARTICIPANTS, MeetingOptions, run_meeting
from mien_client.outgoing import SMOOTHING
from mien_client.room_state import RoomClosed
from mien_client.sources import SourceError
from mien_client.speaking import DEMO_TRACK
from mien_client.uplink import UplinkClosed
from mien_client.whep import WhepError
from mien_encoder.keypoints import EncoderFileError
from mien_shared.avatars import Consent, ConsentKind
from mien_shared.bus.embedded_redis import EmbeddedRedisError
from mien_shared.wire.motion import MotionPacketError
from mien_shared.wire.track import MotionTrackError

T = TypeVar("T")

#: Errors that the user can do something about. They are shown as one line, without a traceback.
_KNOWN_ERRORS = (
    BadAddress,
    BadToken,
    EmbeddedRedisError,
    EncoderFileError,
    FFmpegError,
    LandmarksError,
    LaunchError,
    MienError,
    MotionPacketError,
    MotionTrackError,
    NotMien,
    OSError,
    RoomClosed,
    SourceError,
    Unreachable,
    UplinkClosed,
    WhepError,
)

_INTERRUPTED = 130  # 128 + SIGINT, the exit status that shells expect


class _EntryPointGroup(click.Group):
    """A group whose commands come from entry points. A command is loaded only when it is used."""

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
    """Run a coroutine to its end. SIGINT and SIGTERM cancel it. Known errors are printed as one line."""

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
        raise click.ClickException(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """What an error says. An OSError's number says nothing to a user."""
    if isinstance(error, (OSError, FFmpegError)) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@click.group(cls=_EntryPointGroup, entry_point_group="mien.commands")
@click.version_option(version("mien-client"), prog_name="mien")
def main() -> None:
    """Mien: video calls in which avatars speak, at 28.8 kbit/s of motion."""


@main.group(cls=_EntryPointGroup, entry_point_group="mien.bench")
def bench() -> None:
    """Measure one stage and compare it with its alternative."""


def _say(text: str) -> None:
    click.echo(text, err=True)


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file to write at once, not when the first picture arrives."""
    if path is not None:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise click.BadParameter(f"there is no folder {folder}")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise click.BadParameter(f"{path} cannot be written: permission denied")
    return path


_PORT_NUMBER = click.IntRange(0, 65535)
_PORT = click.option(
    "--port",
    type=_PORT_NUMBER,
    default=8080,
    show_default=True,
    help="Port of the page and the REST API. 0 takes any free port.",
)
_SIGNALING_PORT = click.option(
    "--signaling-port",
    type=_PORT_NUMBER,
    default=8081,
    show_default=True,
    help="Port of WHEP. 0 takes any free port.",
)
_BACKEND = click.option(
    "--backend",
    "--engine",  # the option's old name
    "backend",
    type=click.Choice(["auto", "onnx", "torch", "warp"]),
    default="auto",
    show_default=True,
    help="Backend that makes the faces. onnx and torch run the network; warp needs none. auto means onnx, or warp if "
    "the weights or onnxruntime are missing.",
)
_WEIGHTS = click.option(
    "--weights",
    type=click.Path(exists=True, path_type=Path),
    help="Weights file of the network. Default: the bundled weights.",
)
_SECONDS = click.option(
    "--seconds", type=click.FloatRange(min=0.1), help="Stop after this many seconds. Default: no limit."
)
_RECORD = click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_writable,
    help="Write the video that the viewer received to this MP4 file.",
)
_AVATAR = click.option(
    "--avatar", default=BUNDLED_AVATAR, show_default=True, help="Avatar id, or a picture file to upload."
)
_URL = click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the gateway.")
_API_KEY = click.option(
    "--api-key",
    envvar="MIEN_API_KEY",
    help="API key of an operator, if the service requires one. Prefer the variable MIEN_API_KEY: other users of this "
    "machine can see a command's arguments.",
)
_CONSENT = click.option(
    "--consent",
    type=click.Choice([str(kind) for kind in ConsentKind]),
    help="For a picture file, if the service requires it. self: it shows you. granted: it shows a person who agreed; "
    "name them with --consent-name. drawn: it shows no real person.",
)
_CONSENT_NAME = click.option("--consent-name", metavar="NAME", help="Name of the person in the picture.")


def _stack(port: int, signaling_port: int, backend: str, weights: Path | None, data: Path | None) -> StackOptions:
    environment = {"MIEN_FACE_BACKEND": backend} | ({"MIEN_WEIGHTS": str(weights)} if weights else {})
    return StackOptions(gateway_port=port, signaling_port=signaling_port, avatar_folder=data, generator_env=environment)


@main.command()
@_SECONDS
@_RECORD
@_AVATAR
@_CONSENT
@_CONSENT_NAME
@click.option(
    "--motion",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEMO_TRACK,
    help="Motion track that the speaker plays. Default: the bundled track.",
)
@click.option(
    "--participants",
    type=click.IntRange(1, MOST_PARTICIPANTS),
    default=1,
    show_default=True,
    help="With 2 or more, so many recorded speakers with voices meet in the room `demo`.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print frames, latency and bit rates of a viewer as JSON at the end, with several participants those of each.",
)
@_PORT
@_SIGNALING_PORT
@_BACKEND
@_WEIGHTS
def demo(
    seconds: float | None,
    record: Path | None,
    avatar: str,
    consent: str | None,
    consent_name: str | None,
    motion: Path,
    participants: int,
    as_json: bool,
    port: int,
    signaling_port: int,
    backend: str,
    weights: Path | None,
) -> None:
    """Run all services on this machine with recorded speakers. Prints the address of the page to open."""
    stack = _stack(port, signaling_port, backend, weights, None)
    if participants > 1:
        if record is not None or motion != DEMO_TRACK or avatar != BUNDLED_AVATAR:
            raise click.UsageError("--record, --motion and --avatar are for one participant: leave out --participants")
        meeting = MeetingOptions(participants, seconds, as_json, stack)
        figures = run(run_meeting(meeting, _say))
        if as_json:
            click.echo(json.dumps(figures))
        return
    options = DemoOptions(avatar, motion, seconds, record, as_json, stack, StatedConsent(consent, consent_name))
    report = run(run_demo(options, _say))
    if as_json:
        click.echo(json.dumps(report))


@main.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Data folder. Avatars are stored in its sub-folder avatars.",
)
@_PORT
@_SIGNALING_PORT
@_BACKEND
@_WEIGHTS
@click.option(
    "--generators",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of generator processes to start.",
)
def up(data: Path, port: int, signaling_port: int, backend: str, weights: Path | None, generators: int) -> None:
    """Run the services on this machine and wait for speakers."""

    async def serve() -> None:
        avatars = data.resolve() / "avatars"
        avatars.mkdir(parents=True, exist_ok=True)  # one line if it cannot be made, not the log of a service
        options = _stack(port, signaling_port, backend, weights, avatars)
        async with Stack(replace(options, generators=generators)) as stack:
            _say(f"Mien is running at {stack.url} (API at {stack.url}/docs); Ctrl-C ends it.")
            await stack.watch()

    run(serve())


@main.command()
@click.argument("source")
@_AVATAR
@_CONSENT
@_CONSENT_NAME
@_URL
@_API_KEY
@click.option("--loop", is_flag=True, help="Repeat the clip until Ctrl-C.")
@click.option(
    "--tracker",
    type=click.Choice(["encoder", "landmarks"]),
    default="encoder",
    show_default=True,
    help="Tool that finds the keypoints: the keypoint encoder, or the landmark tool, which `make landmarks` installs.",
)
@click.option(
    "--smoothing",
    type=click.Choice(list(SMOOTHING)),
    default="one-euro",
    show_default=True,
    help="Filter that smooths the keypoints over time.",
)
@click.option(
    "--camera",
    metavar="DEVICE",
    help="Camera to use if SOURCE is `camera`. Default: /dev/video0 on Linux, the system's default camera on macOS.",
)
@click.option(
    "--audio",
    metavar="FILE",
    help="File whose sound is the voice; for a clip's own sound, the clip. Motion and voice are then sent over WHIP.",
)
@click.option("--no-judgement", is_flag=True, help="Send extreme poses too. Otherwise a default motion replaces them.")
def send(
    source: str,
    avatar: str,
    consent: str | None,
    consent_name: str | None,
    url: str,
    api_key: str | None,
    loop: bool,
    tracker: str,
    smoothing: str,
    camera: str | None,
    audio: str | None,
    no_judgement: bool,
) -> None:
    """Send the motion of the face in SOURCE: a video clip, a .motion track, or `camera`."""
    if camera is not None and source != CAMERA:
        raise click.UsageError(f"--camera {camera} needs SOURCE to be `camera`")
    judged = not no_judgement
    options = SendOptions(
        source,
        avatar,
        url,
        api_key,
        loop,
        tracker,
        smoothing,
        judged=judged,
        camera=camera,
        audio=audio,
        consent=StatedConsent(consent, consent_name),
    )
    run(send_source(options, _say))


@main.command()
@click.argument("room")
@click.option("--clip", help="Video whose face and sound to send, or `camera`.")
@click.option(
    "--track",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Motion track to send, with the voice in the file of the same name that ends in .ogg.",
)
@click.option(
    "--audio",
    metavar="FILE",
    help="File whose sound is the voice. Default: the sound of the clip or track. Alone it moves the avatar's mouth.",
)
@click.option("--loop", is_flag=True, help="Repeat the clip until Ctrl-C.")
@_AVATAR
@_CONSENT
@_CONSENT_NAME
@click.option("--name", default="Python", show_default=True, help="Name that the others see.")
@_URL
@_API_KEY
@_SECONDS
@click.option("--json", "as_json", is_flag=True, help="Print what was received of each participant as JSON at the end.")
def join(
    room: str,
    clip: str | None,
    track: Path | None,
    audio: str | None,
    loop: bool,
    avatar: str,
    consent: str | None,
    consent_name: str | None,
    name: str,
    url: str,
    api_key: str | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Take part in ROOM: the address of its page, or its name; a room of this name is created if there is none.

    Without --clip and --track only watch and listen. Ctrl-C leaves the room.
    """
    if clip is not None and track is not None:
        raise click.UsageError("--clip and --track exclude each other")
    stated = StatedConsent(consent, consent_name)
    options = JoinOptions(room, clip, track, audio, loop, avatar, name, url, api_key, seconds, stated)
    report = run(join_room(options, _say))
    if as_json:
        click.echo(json.dumps(report))


@main.command()
@click.argument("url")
@click.option("--token", help="Watch token, if the service requires one.")
@_RECORD
@_SECONDS
@click.option("--json", "as_json", is_flag=True, help="Print frames, latency and bit rate as JSON at the end.")
def watch(url: str, token: str | None, record: Path | None, seconds: float | None, as_json: bool) -> None:
    """Watch a session. URL is its WHEP address, or the address of its watch page, with #session=."""
    report = run(watching.watch(url, token, record, seconds, _say))
    if as_json:
        click.echo(json.dumps(report))


@main.command()
@click.argument("url")
@click.option("--token", help="Watch token, if the service requires one.")
@click.option(
    "--frames", type=click.IntRange(min=1), default=5, show_default=True, help="Number of frames to read, then stop."
)
@click.option("--json", "as_json", is_flag=True, help="Print the frames as a JSON list.")
def trace(url: str, token: str | None, frames: int, as_json: bool) -> None:
    """Show the life of a few frames of a running session: the time in each stage, and the synthetic mark.

    URL is its WHEP address, or the address of its watch page, with #session=.
    """
    lives = run(tracing.trace(url, token, frames))
    if as_json:
        click.echo(json.dumps([life.as_json() for life in lives]))
    else:
        click.echo("\n".join(life.sentence() for life in lives))


@main.group()
def avatar() -> None:
    """Add, list and delete avatars."""


@avatar.command("add")
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_CONSENT
@_CONSENT_NAME
@_URL
@_API_KEY
def add_avatar(picture: Path, consent: str | None, consent_name: str | None, url: str, api_key: str | None) -> None:
    """Make an avatar from PICTURE, which shows one face, and print its id."""

    async def add() -> str:
        async with MienClient(url, api_key) as mien:
            return (await mien.upload_avatar(picture, consent, consent_name)).avatar_id

    click.echo(run(add()))


@avatar.command("list")
@_URL
@_API_KEY
def list_avatars(url: str, api_key: str | None) -> None:
    """Print the id of every avatar, and what was said about the consent of the person in it."""

    async def read() -> list[str]:
        async with MienClient(url, api_key) as mien:
            records = [await mien.avatar(one.avatar_id) for one in await mien.avatars()]
            return [f"{one.avatar_id}  {said(one.consent)}" for one in records]

    def said(consent: Consent | None) -> str:
        return "-" if consent is None else f"{consent.kind} {consent.name or ''}".rstrip()

    for line in run(read()):
        click.echo(line)


@avatar.command("delete")
@click.argument("avatar_id")
@_URL
@_API_KEY
def delete_avatar(avatar_id: str, url: str, api_key: str | None) -> None:
    """Delete an avatar. The sessions that show it end."""

    async def delete() -> None:
        async with MienClient(url, api_key) as mien:
            await mien.delete_avatar(avatar_id)

    run(delete())
