"""Exact algebra on convolution weights: the same function from fewer operations. numpy alone, for every runtime.

Kernels are (Cout, Cin, kh, kw) float32 cross-correlations, as torch and ONNX have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien_shared.keypoints import FloatArray

#: torch's default, with which the published networks were trained.
BATCH_NORM_EPSILON = 1e-5

# A pixel doubled to two and then convolved with three taps w0 w1 w2 meets itself twice: the output at 2i is
# w0 x[i-1] + (w1 + w2) x[i], the one at 2i + 1 is (w0 + w1) x[i] + w2 x[i+1].
_PHASE_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)  # (phase, tap, of three)
# The same as a transposed convolution of stride 2 and padding 1, where x[i] reaches output 2i - 1 + k through tap k.
_TRANSPOSED_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)  # (tap, of three)


@dataclass(frozen=True, slots=True, eq=False)
class BatchNorm:
    """A trained normalisation on its stored statistics; (C,) float32 each."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray

    def affine(self) -> tuple[FloatArray, FloatArray]:
        """It as scale * x + shift, (C,) each."""
        scale = self.gamma / np.sqrt(self.variance + np.float32(BATCH_NORM_EPSILON))
        return scale, self.beta - self.mean * scale


def fold(weight: FloatArray, bias: FloatArray, norm: BatchNorm) -> tuple[FloatArray, FloatArray]:
    """A convolution and the normalisation behind it as one convolution."""
    scale, shift = norm.affine()
    return weight * scale[:, None, None, None], bias * scale + shift


def phase_kernels(weight: FloatArray) -> FloatArray:
    """(Cout, Cin, 3, 3) after nearest doubling -> (2, 2, Cout, Cin, 2, 2) on the picture as it was: 16 taps, not 36.

    Phase (p, q) makes the outputs at (2i + p, 2j + q). With the picture padded by one pixel on every side, and no
    padding of the convolution's own, its value for (i, j) is the convolution's at (i + p, j + q).
    """
    return np.einsum("pyr,qxs,oirs->pqoiyx", _PHASE_TAPS, _PHASE_TAPS, weight, dtype=np.float32)


def transposed_kernel(weight: FloatArray) -> FloatArray:
    """(Cout, Cin, 3, 3) after nearest doubling -> (Cin, Cout, 4, 4) of a transposed one, stride 2, padding 1."""
    return np.einsum("yr,xs,oirs->ioyx", _TRANSPOSED_TAPS, _TRANSPOSED_TAPS, weight, dtype=np.float32)


def padded(weight: FloatArray, multiple: int) -> FloatArray:
    """Both channel counts up to a multiple, with zeros: tensor cores take channels by eights."""
    out_features, in_features = weight.shape[:2]
    return np.pad(weight, ((0, -out_features % multiple), (0, -in_features % multiple), (0, 0), (0, 0)))
