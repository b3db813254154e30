"""Many commands and Lua scripts in one round trip to Redis.

redis-py asks the server in every pipeline whether it knows the scripts, which costs a second round trip. A Trip names
scripts by their digest, and sends their text only to a server that does not know them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError, ResponseError

Argument = bytes | str | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. In a cluster, all its keys must be on one node."""

    text: str
    sha1: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha1", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class Trip:
    """Commands for one round trip, in their order. It is not a transaction: those of other clients come between."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._commands: list[Callable[[Redis | Pipeline], Any]] = []
        self._scripts: dict[int, Script] = {}

    def add(self, command: Callable[[Redis | Pipeline], Any]) -> None:
        """Add a command; its answer has the same place among the answers.

        command: calls one method of its argument, which is the client if no other command is added.
        """
        self._commands.append(command)

    def run(self, script: Script, names: Sequence[str], args: Sequence[Argument]) -> None:
        """Add a script with these keys and arguments."""
        self._scripts[len(self._commands)] = script
        self._commands.append(lambda pipe: pipe.evalsha(script.sha1, len(names), *names, *args))

    async def go(self) -> list[Any]:
        """The answers. Raises the first error of Redis. Takes two round trips if the server lacks a script."""
        if not self._commands:
            return []
        answers = await self._send(range(len(self._commands)))
        if unknown := [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
            for place, answer in zip(unknown, await self._send(unknown, load=True), strict=True):
                answers[place] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _send(self, places: Sequence[int], load: bool = False) -> list[Any]:
        if len(places) == 1 and not load:  # a pipeline takes a quarter more of this process's time
            try:
                return [await self._commands[places[0]](self._redis)]
            except ResponseError as error:
                return [error]
        texts = {self._scripts[place].text for place in places} if load else set()
        async with self._redis.pipeline(transaction=False) as pipe:
            for text in texts:
                pipe.execute_command("SCRIPT LOAD", text)
            for place in places:
                self._commands[place](pipe)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers[len(texts) :]
