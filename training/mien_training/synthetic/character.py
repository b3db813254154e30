"""One synthetic person: a face of the model with textures, hair and clothes, which can be posed frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien_training.synthetic import paint
from mien_training.synthetic.head import (
    BACK,
    FACE,
    GUMS,
    LEFT_EYE,
    PIVOT,
    RIGHT_EYE,
    TEETH,
    Array,
    HeadModel,
    Indices,
    normals_of,
    rotation_of,
)
from mien_training.synthetic.motion import State

#: An iris's angular radius, seen from the centre of the eyeball, radians.
_IRIS_ANGLE = 0.40
#: The centre of the skull, cm.
_SKULL = np.array([0.0, 5.0, 0.0], np.float32)

#: The hairline: azimuth from the front in degrees, and the height in cm above which hair grows.
_HAIRLINE = np.array(
    [
        (0, 10.4),
        (30, 10.2),
        (45, 8.4),
        (58, 5.0),
        (68, 2.0),
        (78, 1.5),
        (84, 6.6),
        (104, 6.6),
        (114, 2.0),
        (135, -4),
        (180, -5),
    ]
)


@dataclass(frozen=True)
class Finish:
    """A surface's response to light. shine, narrow: strength and exponent of the highlight; wrap: how far light wraps
    around; frays: whether edges fray, as hair does."""

    shine: float
    narrow: float
    wrap: float
    frays: bool = False


@dataclass(frozen=True)
class Surface:
    """Triangles over the character's vertices, with texture and finish."""

    triangles: Indices
    texture: NDArray[np.uint8]
    finish: Finish


@dataclass(frozen=True)
class Light:
    """Directions towards the lights (unit, camera axes) and their linear colours; sky and ground are ambient.

    softness: blur of the key light's shadows, in pixels of the shadow map.
    """

    key: Array
    key_colour: Array
    fill: Array
    fill_colour: Array
    rim: Array
    rim_colour: Array
    sky: Array
    ground: Array
    softness: float


@dataclass(frozen=True)
class Extra:
    """A mesh worn on the head, which moves with it, or on the body. points: (N, 3); uv: (N, 2); tint: (N,)."""

    points: Array
    triangles: Indices
    uv: Array
    tint: Array
    on_head: bool


class Character:
    """One person, determined by the random generator's seed.

    vertices: the model's split vertices, then the hair shell's, then each extra's. uv: (N, 2). tint: (N,) brightness.
    edge: (N,) how far inside the hair's edge a vertex lies, in [0, 1]; 1 for vertices that are not hair.
    """

    def __init__(self, model: HeadModel, openness: Array, rng: np.random.Generator) -> None:
        """openness: (V,) the share of its surroundings that each vertex of the model sees, in [0, 1]."""
        self.model = model
        self.shape = model.person(np.clip(rng.normal(0, 0.9, len(model.modes)), -2, 2).astype(np.float32))
        self._set_back = _set_back(model)
        self.colours = paint.complexion(rng)
        self.light = _light(rng)
        self._uv, self._tint = [model.uv], [_anatomy_tint(model, rng, openness)]
        self._edge = [np.ones(len(model.split), np.float32)]
        self._extras: list[Extra] = []
        self.surfaces: list[Surface] = []
        self._count = len(model.split)
        self._bare(rng)
        self._shell: Shell | None = None
        self._hair(rng)
        if rng.random() < 0.18:
            self._wear_glasses(rng)
        self._dress(rng)
        self.uv = np.concatenate(self._uv).astype(np.float32)
        self.tint = np.concatenate(self._tint).astype(np.float32)
        self.edge = np.concatenate(self._edge).astype(np.float32)

    def posed(self, state: State) -> tuple[Array, Array, Array]:
        """The vertices (N, 3), their normals (N, 3), and the model's vertices (V, 3), all in world coordinates, cm."""
        model, rotation = self.model, rotation_of(state.yaw, state.pitch, state.roll)
        shift = np.asarray(state.shift, np.float32)
        world = model.turned(model.expressed(self.shape, state.weights) + self._set_back, rotation, shift)
        normals = model.normals(world)
        points, directions = [world[model.split]], [normals[model.split]]
        if self._shell is not None:
            outer = self._shell.over(world, normals, rotation)
            points.append(outer)
            directions.append(normals_of(outer, self._shell.triangles))
        for extra in self._extras:
            placed = (
                (extra.points - PIVOT) @ rotation.T + PIVOT + shift if extra.on_head else extra.points + 0.5 * shift
            )
            points.append(np.asarray(placed, np.float32))
            directions.append(normals_of(points[-1], extra.triangles))
        return np.concatenate(points), np.concatenate(directions), world

    def _bare(self, rng: np.random.Generator) -> None:
        model = self.model
        face = paint.skin(rng, model, self.colours)
        plain = np.full((8, 8, 3), self.colours.skin, np.uint8)
        radius = _iris_radius(model)
        ball = paint.eye(rng, radius, self.colours)
        skin = Finish(rng.uniform(0.1, 0.4), 18, 0.25)
        teeth = np.clip(np.array([232, 222, 205]) + rng.normal(0, 8, 3), 0, 255)
        of = {part.material: part.triangles for part in model.parts}
        for material, texture, finish in (
            (FACE, face, skin),
            (BACK, plain, skin),
            (GUMS, np.full((8, 8, 3), (150, 72, 72), np.uint8), Finish(0.3, 40, 0.2)),
            (TEETH, np.full((8, 8, 3), teeth, np.uint8), Finish(0.5, 60, 0.2)),
            (LEFT_EYE, ball, Finish(1.6, 180, 0.35)),
            (RIGHT_EYE, ball, Finish(1.6, 180, 0.35)),
        ):
            self.surfaces.append(Surface(of[material], texture, finish))

    def _hair(self, rng: np.random.Generator) -> None:
        style = rng.choice(["bald", "short", "medium", "bob", "long", "hat"], p=[0.08, 0.28, 0.22, 0.13, 0.21, 0.08])
        curl = float(rng.choice([0.0, 0.05, 0.3, 0.9], p=[0.4, 0.3, 0.15, 0.15]))
        texture = paint.hair(rng, self.colours.hair, curl)
        finish = Finish(rng.uniform(0.05, 0.35), 14, 0.3, frays=True)
        if style == "bald":
            return
        if style == "hat":
            colour = rng.uniform(10, 230, 3)
            texture = paint.hair(rng, np.clip(colour, 10, 230), 0.0)
            self._add_shell(Shell(self.model, self.shape, rng, "hat"), texture, Finish(0.0, 1, 0.2))
            if rng.random() < 0.5:
                strands = paint.hair(rng, self.colours.hair, curl)
                self._add(_curtain(rng, rng.uniform(-14, -4)), strands, finish)
            return
        self._add_shell(Shell(self.model, self.shape, rng, str(style)), texture, finish)
        if style in ("bob", "long"):
            reach = rng.uniform(-7, -3) if style == "bob" else rng.uniform(-22, -10)
            self._add(_curtain(rng, reach), texture, finish)

    def _add_shell(self, shell: Shell, texture: NDArray[np.uint8], finish: Finish) -> None:
        self._shell = shell
        self._tint[0] = self._tint[0] * shell.shade[self.model.split]
        self.surfaces.append(Surface(shell.triangles + self._count, texture, finish))
        self._uv.append(shell.uv)
        self._tint.append(np.ones(len(shell.uv), np.float32))
        self._edge.append(shell.edge)
        self._count += len(shell.uv)

    def _add(self, extra: Extra, texture: NDArray[np.uint8], finish: Finish) -> None:
        self.surfaces.append(Surface(extra.triangles + self._count, texture, finish))
        self._extras.append(extra)
        self._uv.append(extra.uv)
        self._tint.append(extra.tint)
        self._edge.append(np.ones(len(extra.uv), np.float32))
        self._count += len(extra.uv)

    def _wear_glasses(self, rng: np.random.Generator) -> None:
        colour = rng.uniform(8, 60, 3) if rng.random() < 0.7 else rng.uniform(60, 220, 3)
        frame = np.full((8, 8, 3), colour, np.uint8)
        eyes = [self.shape[self.model.landmarks68[part]].mean(axis=0) for part in (range(36, 42), range(42, 48))]
        nose = self.shape[self.model.landmarks68[27]]
        self._add(_glasses(rng, np.array(eyes), nose), frame, Finish(0.6, 40, 0.1))

    def _dress(self, rng: np.random.Generator) -> None:
        self._add(_torso(rng), paint.cloth(rng), Finish(0.03, 8, 0.3))


class Shell:
    """Hair or a hat: a copy of the scalp, lifted outwards.

    triangles: over its own vertices. uv, edge: as in Character. style: the hair style from Character.
    shade: (V,) brightness of the model's vertices under the shell.
    """

    def __init__(self, model: HeadModel, shape: Array, rng: np.random.Generator, style: str) -> None:
        template = model.neutral
        x, y, z = template.T
        azimuth = np.degrees(np.arctan2(np.abs(x), z + 0.5))
        signed = np.arctan2(x, z + 0.5)
        waves = sum(
            rng.normal(0, 0.35) * np.sin(k * signed + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 9)
        ) * np.clip(azimuth / 20, 0.3, 1)
        if style == "hat":
            line, thick = 7.2 + rng.uniform(-0.5, 0.8) - 2.0 * (azimuth / 180), rng.uniform(0.35, 0.8)
        else:
            line = np.interp(azimuth, _HAIRLINE[:, 0], _HAIRLINE[:, 1]) + rng.uniform(-0.4, 1.0) + waves
            if rng.random() < 0.25:  # a fringe, or hair combed forward
                line = line - 2.6 * np.exp(-((azimuth / 38) ** 2))
            thick = {"short": rng.uniform(0.25, 0.8), "medium": rng.uniform(0.8, 2.2)}.get(style, rng.uniform(0.6, 1.4))
        depth = y - line
        ear = np.isin(np.arange(len(template)), _ear(model))
        depth = np.where(ear, -5.0, depth)
        scalp = np.isin(model.material, (FACE, BACK)) & (y > -7)
        used = np.all((depth[model.triangles] > -0.8) & scalp[model.triangles], axis=1)
        outer = used & (np.linalg.norm(template[model.triangles].mean(axis=1) - (0, 4, 0), axis=1) > 6.0)
        corners, own = np.unique(model.triangles[outer], return_inverse=True)
        self._vertices = corners
        self.triangles: Indices = own.reshape(-1, 3).astype(np.int32)
        inside = np.clip(depth[corners] / (0.35 if style == "hat" else 1.6), -0.5, 1)
        rise = np.clip(inside, 0, 1) ** 0.6
        shaded = np.isin(model.material, (FACE, BACK)) & (y > -7)
        self.shade = np.where(shaded, 1 - 0.65 * np.clip((depth + 0.1) / 0.8, 0, 1), 1).astype(np.float32)
        lumps = sum(
            rng.normal(0, 0.12) * np.sin(template[corners] @ rng.normal(0, 0.7, 3) + rng.uniform(0, 6))
            for _ in range(6)
        )
        up = np.clip((template[corners, 1] - 8) / 6, 0, 1)
        top = 1 + (rng.uniform(0, 0.8) if style == "medium" else 0.2) * up
        self._lift = np.asarray(
            thick * rise * np.clip(1 + (0 if style == "hat" else 1) * lumps, 0.4, 1.6) * top, np.float32
        )
        self.edge = np.asarray(np.clip(0.5 + 0.5 * inside, 0, 1), np.float32)
        outward = shape[corners] - _SKULL
        self._outward = np.asarray(outward / np.linalg.norm(outward, axis=1, keepdims=True), np.float32)
        tall = np.arctan2(np.hypot(template[corners, 0], template[corners, 2] + 2.5), template[corners, 1] - 3)
        around = np.arctan2(template[corners, 0], template[corners, 2] + 2.5) / (2 * np.pi) + 0.5
        self.uv = np.stack([around * (6 if style == "hat" else 2), tall / np.pi], axis=1).astype(np.float32)

    def over(self, world: Array, normals: Array, rotation: Array) -> Array:
        """(N, 3) the shell's vertices over a posed head (V, 3) with these normals."""
        along = 0.5 * normals[self._vertices] + 0.5 * self._outward @ rotation.T
        return np.asarray(world[self._vertices] + self._lift[:, None] * along, np.float32)


def _ear(model: HeadModel) -> NDArray[np.int64]:
    """The ears' vertices: those at the left and right edges of the face's texture."""
    face = np.unique(model.parts[FACE].triangles)
    u, v = model.uv[face].T
    flap = (np.abs(u - 0.5) > 0.43) & (v < 0.70) & (v > 0.44)
    return np.unique(model.split[face[flap]])


def _iris_radius(model: HeadModel) -> float:
    """An iris's radius in its texture; the texture's centre is the centre of the pupil."""
    split = np.unique(model.parts[LEFT_EYE].triangles)
    points = model.neutral[model.split[split]]
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    away = points - centre
    angle = np.arccos(np.clip(away[:, 2] / np.linalg.norm(away, axis=1), -1, 1))
    radius = np.linalg.norm(model.uv[split] - 0.5, axis=1)
    near = np.abs(angle - _IRIS_ANGLE) < 0.12
    return float(np.median(radius[near] / angle[near]) * _IRIS_ANGLE)


def _anatomy_tint(model: HeadModel, rng: np.random.Generator, openness: Array) -> Array:
    """(S,) brightness of the model's split vertices: uneven skin, dark mouth, occluded places, and the lids' shadow."""
    y, z = model.neutral[:, 1], model.neutral[:, 2]
    place, material = model.neutral, model.material
    uneven = sum(
        rng.normal(0, 0.02) * np.sin(place @ rng.normal(0, 0.35, 3) + rng.uniform(0, 2 * np.pi)) for _ in range(8)
    )
    skin = np.isin(material, (FACE, BACK))
    lips = np.linalg.norm(
        (place - (0, -3.4, 11.2)) / (3.2, 1.5, 3), axis=1
    )  # openness was measured with closed lips, which hide what opens later
    known = 1 - 0.75 * (1 - openness) * np.clip(lips - 0.6, 0, 1)
    tint = np.where(skin, (1 + np.asarray(uneven, np.float32)) * known, 1.0)
    inside = (material == BACK) & (np.linalg.norm(place - (0, 4, 0), axis=1) < 6.5) & (z > 0)
    tint = np.where(inside, 0.08, tint)
    behind = np.clip((z - 7.0) / 3.2, 0, 1)
    middle = 1 - 0.93 * np.clip((np.abs(place[:, 0]) - 0.9) / 1.1, 0, 1)  # the cheeks shade the side teeth
    tint = np.where(material == TEETH, (0.04 + 0.8 * behind) * middle, tint)
    tint = np.where(material == GUMS, (0.04 + 0.5 * behind**2) * (0.3 + 0.7 * middle), tint)
    for eye in (LEFT_EYE, RIGHT_EYE):
        ball = material == eye
        centre = (y[ball].min() + y[ball].max()) / 2
        tint = np.where(ball, 1 - 0.45 * np.clip((y - centre - 0.15) / 0.7, 0, 1), tint)
    return np.asarray(tint[model.split], np.float32)


def _set_back(model: HeadModel) -> Array:
    """(V, 3) a shift that moves eyes and teeth back a little, so that they do not poke through lids and lips."""
    shift = np.zeros_like(model.neutral)
    for materials, back in (((LEFT_EYE, RIGHT_EYE), -0.10), ((TEETH, GUMS), -0.28)):
        shift[np.isin(model.material, materials), 2] = back
    return shift


def _light(rng: np.random.Generator) -> Light:
    def towards(azimuth: float, elevation: float) -> Array:
        return np.array(
            [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], np.float32
        )

    warm = rng.uniform(-1, 1)

    def colour(warmth: float, strength: float) -> Array:
        return np.asarray(strength * np.array([1 + 0.14 * warmth, 1.0, 1 - 0.18 * warmth]), np.float32)

    side = rng.choice([-1.0, 1.0])
    ambient = rng.uniform(0.25, 0.6)
    return Light(
        key=towards(side * rng.uniform(0, 1.25), rng.uniform(0.05, 0.9)),
        key_colour=colour(warm, rng.uniform(0.45, 1.1)),
        fill=towards(-side * rng.uniform(0.4, 1.4), rng.uniform(-0.2, 0.5)),
        fill_colour=colour(rng.uniform(-1, 1), rng.uniform(0.05, 0.35)),
        rim=towards(rng.choice([-1, 1]) * rng.uniform(1.9, 2.7), rng.uniform(0, 0.8)),
        rim_colour=colour(rng.uniform(-1, 1), rng.uniform(0, 0.6) if rng.random() < 0.5 else 0),
        sky=colour(-0.5 * warm, ambient),
        ground=colour(rng.uniform(0, 1), ambient * rng.uniform(0.35, 0.8)),
        softness=float(rng.uniform(1.0, 6.0)),
    )


def _grid(rows: int, columns: int, closed: bool) -> Indices:
    """Triangles of a grid of vertices in row order; closed: the last column is connected to the first."""
    triangles = []
    for row in range(rows - 1):
        for column in range(columns if closed else columns - 1):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            triangles += [(a, b, a + columns), (b, b + columns, a + columns)]
    return np.array(triangles, np.int32)


def _curtain(rng: np.random.Generator, bottom: float) -> Extra:
    """Hair that hangs behind and beside the head down to the height `bottom`, cm."""
    open_at = np.radians(rng.uniform(58, 85))
    rows, columns = 24, 96
    azimuth = np.linspace(open_at, 2 * np.pi - open_at, columns)
    down = np.linspace(0, 1, rows)[:, None]
    top = 11.5
    y = np.broadcast_to(top + down * (bottom - top), (rows, columns))
    ease = np.clip(down * 2.2, 0, 1) ** 0.5
    flare = rng.uniform(-0.8, 2.2) * np.clip(down - 0.4, 0, 1)
    ripple = 0.25 * np.sin(azimuth * rng.integers(8, 20) + 4 * down) + 0.2 * np.sin(azimuth * rng.integers(20, 40))
    wide, deep = 6.0 + 3.9 * ease + flare + ripple, 5.0 + 4.7 * ease + flare + ripple
    ragged = rng.normal(0, 0.5, columns) * down
    points = np.stack([wide * np.sin(azimuth), y + ragged, deep * np.cos(azimuth) - 1.2 + 0 * y], axis=2).reshape(-1, 3)
    uv = np.stack(np.broadcast_arrays(azimuth / np.pi * 1.5, 0.2 + down), axis=2).reshape(-1, 2)
    shade = np.broadcast_to(0.55 + 0.45 * np.abs(np.sin(azimuth)) + 0 * down, (rows, columns)).ravel()
    return Extra(
        points.astype(np.float32), _grid(rows, columns, False), uv.astype(np.float32), shade.astype(np.float32), True
    )


def _glasses(rng: np.random.Generator, eyes: Array, bridge: Array) -> Extra:
    """Spectacles in front of the eyes (2, 3) at the bridge of the nose (3,): rims, bridge, arms."""
    thick = rng.uniform(0.10, 0.24)
    wide, high, square = rng.uniform(2.3, 2.9), rng.uniform(1.6, 2.5), rng.uniform(2.0, 4.5)
    depth = bridge[2] + 0.6
    angle = np.linspace(0, 2 * np.pi, 41)
    c, s = np.cos(angle), np.sin(angle)
    lines = []
    for eye in eyes:
        out = np.sign(eye[0])
        r = (np.abs(c) ** square + np.abs(s) ** square) ** (-1 / square)
        x, y = eye[0] + 0.15 * out + wide * r * c, eye[1] - 0.2 + high * r * s
        lines.append(np.stack([x, y, depth - 0.05 * np.abs(x) ** 1.5], axis=1))
        outer = eye[0] + out * (0.15 + wide)
        share = np.linspace(0, 1, 12)
        beside = outer + (out * 8.3 - outer) * share**0.6
        back = depth - 0.05 * abs(outer) ** 1.5
        lines.append(np.stack([beside, eye[1] + 0.2 - 0.3 * share, back - (back + 0.5) * share**1.3], axis=1))
    inner = abs(eyes[0][0]) - wide + 0.2
    arch = np.linspace(-1, 1, 9)
    lines.append(np.stack([arch * max(inner, 0.4), eyes[:, 1].mean() + 0.5 - 0.3 * arch**2, 0 * arch + depth], axis=1))
    sides = 6
    points, triangles, count = [], [], 0
    for line in lines:
        along = np.gradient(line, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        first = np.cross(along, np.where(np.abs(along[:, 2:]) > 0.9, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
        first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
        second = np.cross(along, first)
        turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
        tube = line[:, None] + thick * (np.cos(turn) * first[:, None] + np.sin(turn) * second[:, None])
        points.append(tube.reshape(-1, 3))
        triangles.append(_grid(len(line), sides, True) + count)
        count += len(line) * sides
    return Extra(
        np.concatenate(points).astype(np.float32),
        np.concatenate(triangles),
        np.full((count, 2), 0.5, np.float32),
        np.ones(count, np.float32),
        True,
    )


def _torso(rng: np.random.Generator) -> Extra:
    """Neckline, shoulders and chest, built from rings around the body."""
    broad = rng.uniform(0.88, 1.12)
    low = rng.uniform(-1.2, 0.6)
    rings = np.array(
        [
            (-10.6 + low, 8.4 - 0.8 * low, 7.3 - 0.2 * low),
            (-12.6 + 0.6 * low, 12.6, 8.2),
            (-14.6, 15.5 * broad, 8.6),
            (-17.0, 19.0 * broad, 9.4),
            (-21.0, 21.5 * broad, 10.5),
            (-30.0, 21.5 * broad, 11.5),
            (-50.0, 21.0 * broad, 11.5),
        ]
    )
    columns = 64
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    dip = rng.uniform(0, 2.5) if rng.random() < 0.6 else 0.0
    points, uv = [], []
    for number, (y, wide, deep) in enumerate(rings):
        front = np.clip(np.cos(angle), 0, 1) ** 3
        drop = dip * front if number == 0 else 0.5 * dip * front if number == 1 else 0 * front
        height = y - drop
        points.append(np.stack([wide * np.sin(angle), height, deep * np.cos(angle) - 1.7], axis=1))
        uv.append(np.stack([angle / np.pi * 2, -height / 14], axis=1))
    return Extra(
        np.concatenate(points).astype(np.float32),
        _grid(len(rings), columns, True),
        np.concatenate(uv).astype(np.float32),
        np.ones(len(rings) * columns, np.float32),
        False,
    )
