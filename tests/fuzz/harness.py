"""Fuzzes a decoder with damaged input: reproducible input from a random seed, or input that Atheris guides by coverage.

A target is a function that takes bytes and raises only if the decoder has a bug. Its seeds are valid inputs. The fuzzer
changes, removes and repeats bytes of a seed, replaces them with bytes of other seeds, and inserts the target's words.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERESTING = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
_MAX_EDITS = 6
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Target:
    """check: raises if the decoder has a bug. seeds: valid inputs. words: byte strings that the decoder knows."""

    name: str
    check: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()


def inputs(target: Target, count: int, seed: int) -> list[bytes] | None:
    """Run up to `count` inputs. Returns a list with the first input that fails, or None if none fails."""
    chance = random.Random(seed)
    for _ in range(count):
        data = damaged(chance, target)
        try:
            target.check(data)
        except Exception:  # noqa: BLE001 - any error is a finding
            return [data]
    return None


def damaged(chance: random.Random, target: Target) -> bytes:
    """One input: a seed with up to six edits, or random bytes once in fifty times."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(300))
    data = bytearray(chance.choice(target.seeds))
    for _ in range(chance.randint(1, _MAX_EDITS)):
        _edit(chance, data, target)
    return bytes(data[:_LONGEST])


def _edit(chance: random.Random, data: bytearray, target: Target) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 2, 4, 16, 256)))
    match chance.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1 if at < len(data):
            data[at] = chance.randrange(256)
        case 2:
            word = chance.choice(_INTERESTING)
            data[at : at + len(word)] = word
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        case 5:
            other = chance.choice(target.seeds)
            begin = chance.randrange(len(other))
            data[at:end] = other[begin : begin + chance.choice((4, 32, 512))]
        case 6 if target.words:
            data[at:end] = chance.choice(target.words)
        case _:
            data[at:at] = chance.choice(target.words or _INTERESTING)


def main(target: Target) -> None:
    parser = argparse.ArgumentParser(description=f"Fuzz the {target.name} decoder.")
    parser.add_argument("--inputs", type=int, default=100_000, help="Number of inputs to run. Default: 100000.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random numbers. Default: 0.")
    parser.add_argument("--guided", action="store_true", help="Guide by coverage. Needs `pip install atheris`.")
    chosen = parser.parse_args()
    if chosen.guided:
        _guided(target, chosen.inputs)
        return
    started_s = time.monotonic()
    if (found := inputs(target, chosen.inputs, chosen.seed)) is not None:
        kept = Path(f"{target.name}.crash")
        kept.write_bytes(found[0])
        print(f"seed {chosen.seed}: the {target.name} decoder fails on an input, written to {kept}")
        target.check(found[0])  # run it again for the traceback
        sys.exit(1)
    elapsed_s = time.monotonic() - started_s
    print(f"{target.name}: {chosen.inputs} inputs of seed {chosen.seed} in {elapsed_s:.0f} s, no failure")


def _guided(target: Target, count: int) -> None:
    import atheris  # type: ignore[import-untyped]  # an optional dependency

    corpus = Path(f"/tmp/mien-fuzz-{target.name}")
    corpus.mkdir(exist_ok=True)
    for index, seed in enumerate(target.seeds):
        (corpus / f"seed{index}").write_bytes(seed)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={count}", f"-max_len={_LONGEST}", str(corpus)], target.check)
    atheris.Fuzz()
