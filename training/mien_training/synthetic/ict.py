"""Rendered people: the ICT face model with procedural appearance, poses and expressions, and with exact labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mien_training.synthetic import paint
from mien_training.synthetic.character import Character
from mien_training.synthetic.dataset import Film, LabelledSequence, labelled, shaken
from mien_training.synthetic.head import HeadModel
from mien_training.synthetic.labels import framing, landmarks_of
from mien_training.synthetic.motion import sequence
from mien_training.synthetic.renderer import Camera, Renderer

SOURCE = "ICT-FaceKit Light, (c) 2020 USC ICT, MIT; rendered"


def ict_sequences(model: HeadModel, identities: int, frames: int, size: int, seed: int) -> Iterator[LabelledSequence]:
    """Sequences of `identities` people, each with the seed (seed, number). size: side of a frame in pixels."""
    with Renderer(size) as renderer:
        openness = renderer.openness(model.neutral, model.normals(model.neutral), model.triangles)
        for number in range(identities):
            character = Character(model, openness, rng := np.random.default_rng((seed, number)))
            yield _ict_sequence(character, renderer, rng, frames, size)


def _ict_sequence(
    character: Character, renderer: Renderer, rng: np.random.Generator, frames: int, size: int
) -> LabelledSequence:
    renderer.take(character)
    behind = paint.background(rng, size)
    posed = [character.posed(state) for state in sequence(rng, frames)]
    distance = float(rng.uniform(45, 110))
    plain = Camera(distance, 1.0, (0.0, 0.0))
    faces = [landmarks_of(plain.project(world)) for _, _, world in posed]
    box = shaken(rng, framing(faces))
    camera = Camera(distance, 2 / box.size, (-2 * box.x / box.size - 1, -2 * box.y / box.size - 1))
    film = Film(rng)
    pictures = [film.develop(renderer.draw(places, normals, camera, behind)) for places, normals, _ in posed]
    return labelled(pictures, [box.to_crop(face) for face in faces])
