"""The rewritten kernels against the operations they stand for, in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mien_generator.face.fomm.rewrite import BatchNorm, fold, padded, phase_kernels, transposed_kernel
from mien_shared.keypoints import FloatArray

RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> FloatArray:
    return RANDOM.normal(size=shape).astype(np.float32)


def convolved(x: FloatArray, weight: FloatArray) -> FloatArray:
    """(Cin, H, W), (Cout, Cin, kh, kw) -> (Cout, H - kh + 1, W - kw + 1)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    values: FloatArray = np.einsum("ihwyx,oiyx->ohw", windows, weight)
    return values


def around(x: FloatArray) -> FloatArray:
    return np.pad(x, ((0, 0), (1, 1), (1, 1)))


@pytest.fixture(scope="module")
def x() -> FloatArray:
    return normal(5, 6, 7)


@pytest.fixture(scope="module")
def weight() -> FloatArray:
    return normal(4, 5, 3, 3)


@pytest.fixture(scope="module")
def doubled(x: FloatArray, weight: FloatArray) -> FloatArray:
    return convolved(around(x.repeat(2, axis=1).repeat(2, axis=2)), weight)


def test_phase_kernels_make_what_doubling_and_convolving_makes(
    x: FloatArray, weight: FloatArray, doubled: FloatArray
) -> None:
    phases = phase_kernels(weight)
    assert phases.shape == (2, 2, 4, 5, 2, 2)
    for p in range(2):
        for q in range(2):
            made = convolved(around(x), phases[p, q])[:, p : p + 6, q : q + 7]
            np.testing.assert_allclose(made, doubled[:, p::2, q::2], atol=1e-4)


def test_transposed_kernel_makes_it_too(x: FloatArray, weight: FloatArray, doubled: FloatArray) -> None:
    kernel = transposed_kernel(weight)
    scattered = np.zeros((4, 14, 16), np.float32)  # padding 1 is cut off afterwards
    for i in range(6):
        for j in range(7):
            scattered[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("i,ioyx->oyx", x[:, i, j], kernel)
    np.testing.assert_allclose(scattered[:, 1:-1, 1:-1], doubled, atol=1e-4)


def test_a_normalisation_folds_into_its_convolution(x: FloatArray, weight: FloatArray) -> None:
    bias, norm = normal(4), BatchNorm(normal(4), normal(4), normal(4), np.abs(normal(4)) + np.float32(0.1))
    deviation = np.sqrt(norm.variance + 1e-5)
    plain = (convolved(x, weight) + bias[:, None, None] - norm.mean[:, None, None]) / deviation[:, None, None]
    expected = plain * norm.gamma[:, None, None] + norm.beta[:, None, None]
    folded_weight, folded_bias = fold(weight, bias, norm)
    np.testing.assert_allclose(convolved(x, folded_weight) + folded_bias[:, None, None], expected, atol=1e-4)


def test_padding_adds_only_zeros(weight: FloatArray) -> None:
    wide = padded(weight, 8)
    assert wide.shape == (8, 8, 3, 3)
    np.testing.assert_array_equal(wide[:4, :5], weight)
    assert not wide[4:].any()
    assert not wide[:, 5:].any()
