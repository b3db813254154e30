"""Exact rewrites of convolution weights: the same function with fewer operations. Needs only numpy.

Kernels are (Cout, Cin, kh, kw) float32 cross-correlations, as torch and ONNX have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mien_shared.keypoints import FloatArray

#: torch's default; the published networks were trained with it.
BATCH_NORM_EPSILON = 1e-5

# If pixels are doubled and then convolved with three taps w0 w1 w2, two taps read the same pixel: the output at 2i is
# w0 x[i-1] + (w1 + w2) x[i], the output at 2i + 1 is (w0 + w1) x[i] + w2 x[i+1].
_PHASE_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)  # (phase, tap, of three)
# The same as a transposed convolution of stride 2 and padding 1: tap k adds x[i] to the output 2i - 1 + k.
_TRANSPOSED_TAPS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)  # (tap, of three)


@dataclass(frozen=True, slots=True, eq=False)
class BatchNorm:
    """A trained batch normalisation with its stored statistics; (C,) float32 each."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray

    def affine(self) -> tuple[FloatArray, FloatArray]:
        """Scale and shift, (C,) each, of the equivalent scale * x + shift."""
        scale = self.gamma / np.sqrt(self.variance + np.float32(BATCH_NORM_EPSILON))
        return scale, self.beta - self.mean * scale


def fold(weight: FloatArray, bias: FloatArray, norm: BatchNorm) -> tuple[FloatArray, FloatArray]:
    """A convolution and the normalisation after it, as one convolution."""
    scale, shift = norm.affine()
    return weight * scale[:, None, None, None], bias * scale + shift


def phase_kernels(weight: FloatArray) -> FloatArray:
    """(Cout, Cin, 3, 3) after nearest doubling -> (2, 2, Cout, Cin, 2, 2) without doubling: 16 taps instead of 36.

    Phase (p, q) gives the outputs at (2i + p, 2j + q). If the picture is padded by one pixel on each side and the
    convolution has no padding, then this output is the value of convolution (p, q) at (i + p, j + q).
    """
    return np.einsum("pyr,qxs,oirs->pqoiyx", _PHASE_TAPS, _PHASE_TAPS, weight, dtype=np.float32)


def transposed_kernel(weight: FloatArray) -> FloatArray:
    """(Cout, Cin, 3, 3) after nearest doubling -> (Cin, Cout, 4, 4) for transposed convolution, stride 2, padding 1."""
    return np.einsum("yr,xs,oirs->ioyx", _TRANSPOSED_TAPS, _TRANSPOSED_TAPS, weight, dtype=np.float32)


def padded(weight: FloatArray, multiple: int) -> FloatArray:
    """Pad both channel counts with zeros to a multiple, because tensor cores need multiples of eight."""
    out_features, in_features = weight.shape[:2]
    return np.pad(weight, ((0, -out_features % multiple), (0, -in_features % multiple), (0, 0), (0, 0)))
