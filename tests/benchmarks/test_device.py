"""The device's benchmark at a few channels, and that it asks no more of a machine than torch, numpy and OpenCV."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

from mien_bench.device import ARMS, floor_ms, main
from mien_generator.face.fomm.config import HALF_WIDTH

#: What the services need and a machine that only measures has not.
ABSENT = ("av", "pydantic", "redis", "fastapi", "click", "safetensors", "onnxruntime", "onnx", "prometheus_client")

_WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))
runpy.run_module("mien_bench.device", run_name="__main__")
"""


@pytest.mark.slow
def test_runs_on_torch_alone() -> None:
    arms = ["full", "kept", "eager", "crops", "rgb"]
    options = ["--device", "cpu", "--tiny", "--json", "--sizes", "32", "--batches", "1,3", "--arms", ",".join(arms)]
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)["figures"]
    assert [figure["arm"] for figure in figures] == [ARMS[arm].name for arm in arms]
    for figure in figures:
        assert figure["ms_a_face"].keys() == {"1", "3"}
        assert figure["single_ms"] > 0
        assert figure["psnr_db"] > 80  # on a CPU every arm is float32, and makes the same faces


def test_the_floor_is_what_the_arithmetic_says() -> None:
    assert floor_ms(HALF_WIDTH, 384, tflops=790) == pytest.approx(0.064, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "abacus"], "torch does not know the device 'abacus'"),
        (["--device", "cpu", "--arms", "seventh"], "'seventh'"),
    ],
)
def test_what_it_cannot_measure_it_says(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert says in capsys.readouterr().err
