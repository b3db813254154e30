"""The instruments of the evaluation: dlib's 68 landmarks and its identity network. Both run on the CPU.

Neither is a part of the system. They are independent of the models that they judge: the encoder's teacher is another
detector. The models come from the package face_recognition_models. The landmark model was trained on iBUG 300-W, whose
licence excludes commercial use. It is used only to measure; Mien neither ships it nor needs it (docs/evaluation.md).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mien_evaluation.metrics import Points, ReadFace, RgbArray, l1

#: Side of the picture in which the detector searches for faces. Landmarks are in its pixels, as in the paper.
MEASURED_SIDE = 256
#: dlib reports landmarks in whole pixels. On a picture this many times larger, the step is a quarter of a pixel, and
#: the difference between two JPEGs of one picture falls from 0.47 to 0.33 pixels (four clips, 100 frames).
_MAGNIFIED = 4

_MODELS_PACKAGE = "face_recognition_models"
_LANDMARK_MODEL = "shape_predictor_68_face_landmarks.dat"
_IDENTITY_MODEL = "dlib_face_recognition_resnet_model_v1.dat"


class EvaluationPartMissing(RuntimeError):
    """A package or model that the evaluation needs is not installed; the text says how to install it."""


class FaceReader:
    """Reads landmarks, and identities if wanted, from face crops. Not thread-safe.

    Loading takes about one second and 120 MB. Reading a picture takes 10 ms, or 90 ms with the identity.
    """

    def __init__(self, *, identity: bool = True) -> None:
        """Raises EvaluationPartMissing."""
        self._dlib: Any = _dlib()
        self._faces = self._dlib.get_frontal_face_detector()
        self._landmarks = self._dlib.shape_predictor(str(_model(_LANDMARK_MODEL)))
        self._identity = self._dlib.face_recognition_model_v1(str(_model(_IDENTITY_MODEL))) if identity else None

    def read(self, rgb: RgbArray) -> ReadFace | None:
        """The largest face of a square RGB picture of any size; None if there is no face."""
        small = _at_side(rgb, MEASURED_SIDE)
        found = self._faces(small)
        if not found:
            return None
        box = max(found, key=lambda face: face.area())
        edges = (_MAGNIFIED * edge for edge in (box.left(), box.top(), box.right(), box.bottom()))
        large = _at_side(small, _MAGNIFIED * MEASURED_SIDE)
        shape = self._landmarks(large, self._dlib.rectangle(*edges))
        points: Points = np.array([(part.x, part.y) for part in shape.parts()], np.float64) / _MAGNIFIED
        embedding = None if self._identity is None else np.array(self._identity.compute_face_descriptor(large, shape))
        return ReadFace(points, embedding)


def instruments() -> dict[str, str]:
    """Names and versions of the instruments, to be reported with every figure."""
    dlib, models = importlib.metadata.version("dlib-bin"), importlib.metadata.version(_MODELS_PACKAGE)
    origin = f"dlib {dlib}, {_MODELS_PACKAGE} {models}"
    return {
        "landmark_detector": f"68 landmarks, HOG face detector and regression trees ({origin})",
        "identity_network": f"ResNet-29, 128 values ({origin})",
    }


def l1_and_akd(generated: RgbArray, driving: RgbArray) -> tuple[float, float]:
    """L1 and AKD (pixels at 256) of two batches of pictures, (N, S, S, 3) uint8 RGB: for a training loop.

    AKD is the mean over the pairs in which both pictures have a face, or NaN if there is no such pair. One pair takes
    20 ms. The first call loads the detector and keeps it. Raises EvaluationPartMissing.
    """
    reader = face_reader(identity=False)
    distances = []
    for made, wanted in zip(generated, driving, strict=True):
        read, target = reader.read(made), reader.read(wanted)
        if read is not None and target is not None:
            distances.append(float(np.linalg.norm(read.landmarks - target.landmarks, axis=1).mean()))
    return l1(generated, driving), float(np.mean(distances)) if distances else float("nan")


@cache
def face_reader(*, identity: bool = True) -> FaceReader:
    """The FaceReader, created by the first call and then kept; raises EvaluationPartMissing."""
    return FaceReader(identity=identity)


def _dlib() -> Any:
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise EvaluationPartMissing(_missing("dlib")) from error


def _model(name: str) -> Path:
    # The package is located, not imported: its code needs pkg_resources, which newer setuptools no longer has.
    try:
        spec = find_spec(_MODELS_PACKAGE)
    except ValueError:  # find_spec raises it if sys.modules holds None for the package
        spec = None
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        if (path := Path(folder) / "models" / name).is_file():
            return path
    raise EvaluationPartMissing(_missing(_MODELS_PACKAGE))


def _missing(part: str) -> str:
    return f"evaluation needs {part}, which is not installed: pip install 'mien-evaluation[instruments]'"


def _at_side(rgb: RgbArray, side: int) -> RgbArray:
    if rgb.shape[0] == side:
        return np.ascontiguousarray(rgb)
    shrinks = rgb.shape[0] > side
    return np.asarray(cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
