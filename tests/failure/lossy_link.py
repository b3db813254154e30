"""A link between this machine and a network namespace that loses and delays packets.

It does what tc's netem does, but it needs no kernel module, which many machines lack, and its random numbers are the
same in every run. There are two TUN devices, one of them in the namespace; this process carries packets between them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import subprocess
from types import TracebackType
from typing import Self

HOST, GUEST = "10.213.77.1", "10.213.77.2"

# linux/if_tun.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_IFREQ = struct.Struct("16sH22x")
_LONGEST_PACKET = 65_536


class LinkImpossible(RuntimeError):
    """This machine cannot create a network namespace or a TUN device. The text gives the reason."""


class LossyLink:
    """The link, an async context manager. `namespace` has the other end, from which this machine is HOST."""

    def __init__(self) -> None:
        tag = f"mien-{os.getpid() % 1_000_000}"
        self.namespace = tag
        self._names = (f"{tag}h", f"{tag}g")
        self._fds: list[int] = []
        self._dice = random.Random(5)
        self._loss = self._delay_s = self._jitter_s = 0.0
        self.carried = self.lost = 0

    def impair(self, loss: float, delay_s: float, jitter_s: float) -> None:
        """Impair both directions. Packets may overtake one another, as with netem.

        loss: probability that a packet is lost. delay_s: delay of all others. jitter_s: added to the delay, uniformly
        distributed from minus to plus this value.
        """
        self._loss, self._delay_s, self._jitter_s = loss, delay_s, jitter_s

    async def __aenter__(self) -> Self:
        try:
            self._open()
        except (OSError, subprocess.CalledProcessError) as error:
            self._close()
            raise LinkImpossible(str(getattr(error, "stderr", None) or error).strip()) from error
        loop = asyncio.get_running_loop()
        for here, there in (self._fds, self._fds[::-1]):
            loop.add_reader(here, self._carry, here, there)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        within = ("ip", "netns", "exec", self.namespace)
        _run("ip", "netns", "add", self.namespace)
        for name in self._names:
            self._fds.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
            fcntl.ioctl(self._fds[-1], _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        host, guest = self._names
        _run("ip", "link", "set", guest, "netns", self.namespace)
        _run("ip", "addr", "add", f"{HOST}/30", "dev", host)
        _run("ip", "link", "set", host, "up")
        _run(*within, "ip", "addr", "add", f"{GUEST}/30", "dev", guest)
        _run(*within, "ip", "link", "set", guest, "up")

    def _close(self) -> None:
        fds, self._fds = self._fds, []
        for fd in fds:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)  # this also removes its device
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)

    def _carry(self, here: int, there: int) -> None:
        packet = os.read(here, _LONGEST_PACKET)
        if self._dice.random() < self._loss:
            self.lost += 1
            return
        self.carried += 1
        wait_s = self._delay_s + self._jitter_s * self._dice.uniform(-1, 1)
        asyncio.get_running_loop().call_later(max(0.0, wait_s), self._deliver, there, packet)

    def _deliver(self, there: int, packet: bytes) -> None:
        if there in self._fds:
            try:
                os.write(there, packet)
            except OSError:
                pass  # the device is down: the packet is lost


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
