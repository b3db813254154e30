"""Make landmark_vertices.json again: the vertex of the ICT model for each of Face Mesh's landmarks.

This needs two environments, because none has both an OpenGL context and MediaPipe:

    python -m mien_training.synthetic.fit_landmarks render FOLDER
    PYTHONPATH=training .venv-landmarks/bin/python -m mien_training.synthetic.fit_landmarks fit FOLDER -o FILE

`render` draws people from the front, each with a shut and an open mouth. `fit` runs Face Mesh on the pictures and takes
for each landmark the vertex of the face's front whose projection is nearest in the median. Mirrored landmarks get
mirrored vertices, and landmarks on the midline get vertices on the midline. The lips are fitted on open mouths only,
because a shut mouth hides the end of the inner lip. `fit` also prints the distance of its vertices from the file in
use: half of them are identical and the mean is 2 mm, most of it along the face's outline, which passes over many
vertices.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien_training.synthetic.head import FACE, Array, HeadModel, Indices

SIZE = 384
#: Distance of the camera from the head's origin, cm: the usual distance of a person from a webcam.
DISTANCE_CM = 70.0
#: A picture's side, in units of the height from the brows to the chin.
SIDE_IN_FACES = 2.3
MOUTHS: tuple[dict[str, float], ...] = ({}, {"jawOpen": 0.5})
#: A vertex belongs to the face's front if the cosine between its normal and the direction to the camera is above this.
_GRAZING = 0.05
#: Face Mesh tracks a face from picture to picture. On a still picture its result is stable after this many passes.
_LOOKS = 3
#: The rings of the lips, outermost first; each ring includes the corners.
_LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408),
    *(62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
)


def render(model: HeadModel, folder: Path, people: int, seed: int) -> None:
    """Write pictures.npy (N, S, S, 3) uint8 and scenes.npz.

    scenes: projected (N, F, 2) pixels of the front's vertices, mouth_open (N,).
    """
    from mien_training.synthetic import paint
    from mien_training.synthetic.character import Character
    from mien_training.synthetic.motion import State
    from mien_training.synthetic.renderer import Camera, Renderer

    front = front_vertices(model)
    pictures, projected = [], []
    with Renderer(SIZE) as renderer:
        openness = renderer.openness(model.neutral, model.normals(model.neutral), model.triangles)
        for number in range(people):
            rng = np.random.default_rng((seed, number))
            character = Character(model, openness, rng)
            renderer.take(character)
            behind = paint.background(rng, SIZE)
            for mouth in MOUTHS:
                places, normals, world = character.posed(State(weights=mouth))
                seen = Camera(DISTANCE_CM, 1.0, (0.0, 0.0)).project(world[model.landmarks68])
                low, high = seen.min(axis=0), seen.max(axis=0)
                zoom = 2 / (SIDE_IN_FACES * float(high[1] - low[1]))
                x, y = (-zoom * (low + high) / 2).tolist()
                camera = Camera(DISTANCE_CM, zoom, (x, y))
                pictures.append(renderer.draw(places, normals, camera, behind))
                projected.append((camera.project(world[front]) + 1) / 2 * SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pictures.npy", np.stack(pictures))
    np.savez(
        folder / "scenes.npz",
        projected=np.stack(projected),
        mouth_open=np.array([bool(mouth) for mouth in MOUTHS] * people),
    )


def fit(model: HeadModel, folder: Path) -> Indices:
    """(468,) the vertex of each landmark, from `render`'s files. Raises OSError, or ValueError if no face is found."""
    pictures = np.load(folder / "pictures.npy")
    with np.load(folder / "scenes.npz") as scenes:
        projected, mouth_open = scenes["projected"], scenes["mouth_open"]
    landmarks, found = _found(pictures)
    projected, landmarks, mouth_open = projected[found], landmarks[found], mouth_open[found]
    front, mirrored = front_vertices(model), _mirrored_landmarks()
    twins = _twins(model.neutral[front])
    between = twins == np.arange(len(front))
    vertices = np.zeros(len(mirrored), np.int32)
    for landmark, other in enumerate(mirrored):
        if landmark > other:
            continue
        used = mouth_open if landmark in _LIPS else np.full(len(landmarks), True)
        seen = projected[used]
        apart = np.concatenate(
            [_distances(seen, landmarks[used, landmark]), _distances(seen[:, twins], landmarks[used, other])]
        )
        middle = np.median(apart, axis=0)
        chosen = int(np.argmin(np.where(between, middle, np.inf) if landmark == other else middle))
        vertices[landmark], vertices[other] = front[chosen], front[twins[chosen]]
    return vertices


def front_vertices(model: HeadModel) -> NDArray[np.int64]:
    """(F,) the vertices of the skin that a camera in front of the face sees."""
    towards = np.array((0, 0, DISTANCE_CM)) - model.neutral
    cosines = (model.normals(model.neutral) * towards).sum(axis=1) / np.linalg.norm(towards, axis=1)
    return np.flatnonzero((model.material == FACE) & (cosines > _GRAZING))


def _found(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 478, 2) landmarks in pixels, and (N,) whether Face Mesh found a face in the picture."""
    from mien_landmarks.geometry import NUM_LANDMARKS
    from mien_landmarks.mesh import FaceMesh

    landmarks = np.zeros((len(pictures), NUM_LANDMARKS, 2))
    found = np.zeros(len(pictures), bool)
    with FaceMesh() as mesh:
        for number, picture in enumerate(pictures):
            for _ in range(_LOOKS):
                seen = mesh.find(picture)
            if seen is not None:
                landmarks[number], found[number] = seen, True
    if not found.any():
        raise ValueError("Face Mesh finds no face in these pictures")
    return landmarks, found


def _distances(projected: Array, landmark: NDArray[np.float64]) -> Array:
    """(N, F) distances from a landmark (N, 2) to every vertex (N, F, 2)."""
    return np.asarray(np.hypot(*np.moveaxis(projected - landmark[:, None], 2, 0)), np.float32)


def _twins(points: Array) -> NDArray[np.int64]:
    """(F,) the mirror vertex of each vertex (F, 3) of a symmetric face; on the midline the vertex itself."""
    flipped = points * (-1, 1, 1)
    return np.array([int(np.argmin(np.square(points - each).sum(axis=1))) for each in flipped])


def _mirrored_landmarks() -> list[int]:
    mirrored: list[int] = json.loads((files(__package__) / "drawn_landmarks.json").read_text())["mirrored"]
    return mirrored


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mien_training.synthetic.fit_landmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--avatar3d", type=Path, default=Path("../shared/data/avatar3d"), help="Folder of the ICT model."
    )
    steps = parser.add_subparsers(dest="step", required=True)
    draw = steps.add_parser("render", help="draw people and save the position of each vertex")
    draw.add_argument("folder", type=Path)
    draw.add_argument("--people", type=int, default=40)
    draw.add_argument("--seed", type=int, default=0)
    find = steps.add_parser("fit", help="find landmarks in the pictures, and their vertices")
    find.add_argument("folder", type=Path)
    find.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    model = HeadModel(chosen.avatar3d)
    if chosen.step == "render":
        render(model, chosen.folder, chosen.people, chosen.seed)
        return 0
    vertices = fit(model, chosen.folder)
    chosen.output.write_text(json.dumps(vertices.tolist()))
    in_use = json.loads((files(__package__) / "landmark_vertices.json").read_text())
    apart_mm = 10 * np.linalg.norm(model.neutral[vertices] - model.neutral[in_use], axis=1)
    sys.stdout.write(
        f"{len(vertices)} landmarks; distance from the vertices in use: mean {apart_mm.mean():.2f} mm, median "
        f"{np.median(apart_mm):.2f}, 95 % within {np.quantile(apart_mm, 0.95):.2f}, maximum {apart_mm.max():.2f}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
