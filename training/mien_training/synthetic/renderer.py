"""Off-screen drawing of a character with OpenGL: on a GPU, or on the CPU through Mesa's llvmpipe."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import moderngl
import numpy as np
from numpy.typing import NDArray

from mien_training.synthetic.character import Character
from mien_training.synthetic.head import Array, Indices

#: Any, because moderngl types the settings of its backend as a dict of dicts.
_OFF_SCREEN: dict[str, Any] = {"backend": "egl"}
#: Supersampling: each pixel is the mean of this many pixels in each direction.
_FINER = 2
#: The shadow map: its side in pixels, and its reach from the head's centre, cm.
_SHADOW_SIDE, _SHADOW_REACH = 512, 24.0
#: Openness is measured with this many views from all directions, each of this side in pixels.
_VIEWS, _VIEW_SIDE = 48, 256

_VERTEX = """
#version 330
uniform float distance_cm;
uniform vec2 zoom;
uniform vec2 offset;
in vec3 place;
in vec3 normal;
in vec2 uv;
in float tint;
in float edge;
out vec3 v_place;
out vec3 v_normal;
out vec2 v_uv;
out float v_tint;
out float v_edge;
out vec3 v_lit;
uniform mat4 to_light;
void main() {
    v_lit = (to_light * vec4(place, 1.0)).xyz * 0.5 + 0.5;
    v_place = place; v_normal = normal; v_uv = uv; v_tint = tint; v_edge = edge;
    float w = distance_cm - place.z;
    // Row 0 of the pixels read back is the bottom of clip space, so flip y: in pictures y points down.
    vec2 seen = vec2(place.x, -place.y) * zoom + offset * w;
    float near = 10.0, far = 400.0;
    gl_Position = vec4(seen, ((far + near) * w - 2.0 * far * near) / (far - near), w);
}
"""

_DEPTH_VERTEX = """
#version 330
uniform mat4 to_light;
in vec3 place;
void main() { gl_Position = to_light * vec4(place, 1.0); }
"""

_DEPTH_FRAGMENT = """
#version 330
void main() {}
"""

_FRAGMENT = """
#version 330
uniform sampler2D paint;
uniform float distance_cm;
uniform float shine, narrow, wrap;
uniform bool frays;
uniform vec3 key, key_colour, fill, fill_colour, rim, rim_colour, sky, ground;
in vec3 v_place;
in vec3 v_normal;
in vec2 v_uv;
in float v_tint;
in float v_edge;
in vec3 v_lit;
uniform sampler2DShadow shadows;
uniform float softness;
out vec4 colour;
float reached() {
    float sum = 0.0;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++)
            sum += texture(shadows, v_lit + vec3(vec2(i, j) * softness, -0.012));
    return sum / 9.0;
}
void main() {
    vec4 painted = texture(paint, vec2(v_uv.x, 1.0 - v_uv.y));
    if (frays && v_edge < 0.32 + 0.5 * painted.a) discard;
    vec3 albedo = pow(painted.rgb, vec3(2.2));
    vec3 view = normalize(vec3(0.0, 0.0, distance_cm) - v_place);
    vec3 n = normalize(v_normal);
    if (dot(n, view) < 0.0) n = -n;
    vec3 soft = wrap * vec3(1.0, 0.55, 0.4);
    float k = dot(n, key);
    float reach = reached();
    vec3 light = key_colour * max((vec3(k) + soft) / (1.0 + soft), 0.0) * mix(vec3(reach), vec3(1.0), 0.5 * soft);
    light += fill_colour * max(dot(n, fill), 0.0);
    light += mix(ground, sky, 0.5 + 0.5 * n.y);
    float grazing = pow(1.0 - max(dot(n, view), 0.0), 3.0);
    light += rim_colour * max(dot(n, rim), 0.0) * (0.3 + grazing) * 2.0;
    vec3 lit = albedo * light * v_tint;
    float glint = pow(max(dot(n, normalize(key + view)), 0.0), narrow) * step(0.0, k);
    float second = pow(max(dot(n, normalize(fill + view)), 0.0), narrow);
    float fresnel = 0.35 + 0.65 * grazing;
    lit += shine * v_tint * (reach * key_colour * glint + 0.5 * fill_colour * second) * fresnel;
    colour = vec4(pow(clamp(lit, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}
"""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera on the z axis that looks along it.

    distance_cm: from the head's origin. zoom: crop units per cm at 1 cm from the camera. offset: of the crop, in crop
    units.
    """

    distance_cm: float
    zoom: float
    offset: tuple[float, float]

    def project(self, points: Array) -> Array:
        """(N, 3) cm to (N, 2) crop coordinates."""
        w = self.distance_cm - points[:, 2:]
        return np.asarray(points[:, :2] * (1, -1) * self.zoom / w + self.offset, np.float32)


def _seen_from(towards: Array) -> Array:
    """(4, 4) the matrix from the world to the clip space of a distant viewer in that direction (3,)."""
    aside = np.cross((0.0, 1.0, 0.0), towards)
    aside = np.asarray(aside / (np.linalg.norm(aside) + 1e-9))
    up = np.cross(towards, aside)
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = np.stack([aside, up, -towards]) / _SHADOW_REACH
    return matrix


class Renderer:
    """An OpenGL context with its framebuffers; a context manager. size: the picture's side in pixels."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._gl = moderngl.create_context(standalone=True, require=330, **_OFF_SCREEN)
        self._program = self._gl.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._depth_program = self._gl.program(vertex_shader=_DEPTH_VERTEX, fragment_shader=_DEPTH_FRAGMENT)
        self._shadows = self._gl.depth_texture((_SHADOW_SIDE, _SHADOW_SIDE))
        self._shadows.compare_func = "<="
        self._shadows.repeat_x = self._shadows.repeat_y = False
        self._shadow_frame = self._gl.framebuffer(depth_attachment=self._shadows)
        fine = size * _FINER
        self._frame = self._gl.framebuffer(
            [self._gl.texture((fine, fine), 4)], self._gl.depth_renderbuffer((fine, fine))
        )
        self._owned: list[moderngl.Buffer | moderngl.Texture | moderngl.VertexArray] = []

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._gl.release()

    def take(self, character: Character) -> None:
        """Load this character; it replaces the previous one."""
        for thing in self._owned:
            thing.release()
        gl, count = self._gl, len(character.uv)
        self._moving = gl.buffer(reserve=count * 24, dynamic=True)
        still = gl.buffer(np.column_stack([character.uv, character.tint, character.edge]).astype("f4").tobytes())
        self._owned = [self._moving, still]
        self._draws, self._shades = [], []
        self._to_light = _seen_from(character.light.key)
        self._set("softness", character.light.softness / _SHADOW_SIDE)
        for surface in character.surfaces:
            indices = gl.buffer(surface.triangles.astype("i4").tobytes())
            array = gl.vertex_array(
                self._program,
                [(self._moving, "3f 3f", "place", "normal"), (still, "2f 1f 1f", "uv", "tint", "edge")],
                indices,
            )
            height, width, channels = surface.texture.shape
            texture = gl.texture(
                (width, height), channels, np.ascontiguousarray(surface.texture).tobytes(), alignment=1
            )
            texture.repeat_x = texture.repeat_y = True
            texture.filter = (moderngl.LINEAR, moderngl.LINEAR)
            self._owned += [indices, array, texture]
            self._draws.append((array, texture, surface.finish))
            shade = gl.vertex_array(self._depth_program, [(self._moving, "3f 12x", "place")], indices)
            self._owned.append(shade)
            self._shades.append(shade)
        for name in ("key", "key_colour", "fill", "fill_colour", "rim", "rim_colour", "sky", "ground"):
            self._set(name, tuple(float(v) for v in getattr(character.light, name)))

    def draw(self, places: Array, normals: Array, camera: Camera, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(size, size, 3) the character with these vertices and normals (N, 3) over a background of that size."""
        self._moving.write(np.concatenate([places, normals], axis=1).astype("f4").tobytes())
        self._gl.enable_only(moderngl.DEPTH_TEST)
        matrix = np.ascontiguousarray(self._to_light.T).tobytes()
        self._shadow_frame.use()
        self._shadow_frame.clear(depth=1.0)
        self._write("to_light", matrix, self._depth_program)
        for shade in self._shades:
            shade.render()
        self._write("to_light", matrix, self._program)
        self._shadows.use(1)
        self._set("shadows", 1)
        self._frame.use()
        self._frame.clear(0.0, 0.0, 0.0, 0.0)
        self._set("distance_cm", camera.distance_cm)
        self._set("zoom", (camera.zoom, camera.zoom))
        self._set("offset", camera.offset)
        for array, texture, finish in self._draws:
            texture.use(0)
            self._set("shine", finish.shine)
            self._set("narrow", finish.narrow)
            self._set("wrap", finish.wrap)
            self._set("frays", finish.frays)
            array.render()
        fine = self._size * _FINER
        drawn = np.frombuffer(self._frame.read(components=4), np.uint8).reshape(fine, fine, 4)
        averaged = cv2.resize(drawn, (self._size, self._size), interpolation=cv2.INTER_AREA).astype(np.float32)
        behind = background.astype(np.float32) * (1 - averaged[..., 3:] / 255)
        return np.asarray(np.clip(averaged[..., :3] + behind + 0.5, 0, 255), np.uint8)

    def openness(self, points: Array, normals: Array, triangles: Indices) -> Array:
        """(N,) the unblocked share of the directions in front of each vertex of a mesh (points, normals: (N, 3))."""
        gl = self._gl
        places, indices = gl.buffer(points.astype("f4").tobytes()), gl.buffer(triangles.astype("i4").tobytes())
        array = gl.vertex_array(self._depth_program, [(places, "3f", "place")], indices)
        depth = gl.depth_texture((_VIEW_SIDE, _VIEW_SIDE))
        frame = gl.framebuffer(depth_attachment=depth)
        gl.enable_only(moderngl.DEPTH_TEST)
        seen, most = np.zeros(len(points)), np.zeros(len(points))
        for view in range(_VIEWS):  # a Fibonacci sphere
            height, turn = 1 - (2 * view + 1) / _VIEWS, view * np.pi * (3 - np.sqrt(5))
            across = np.sqrt(1 - height * height)
            towards = np.array([across * np.cos(turn), height, across * np.sin(turn)], np.float32)
            matrix = _seen_from(towards)
            frame.use()
            frame.clear(depth=1.0)
            self._write("to_light", np.ascontiguousarray(matrix.T).tobytes(), self._depth_program)
            array.render()
            nearest = np.frombuffer(depth.read(), np.float32).reshape(_VIEW_SIDE, _VIEW_SIDE)
            placed = (points @ matrix[:3, :3].T + matrix[:3, 3]) * 0.5 + 0.5
            column, row = (np.clip(placed[:, axis] * _VIEW_SIDE, 0, _VIEW_SIDE - 1).astype(np.int64) for axis in (0, 1))
            weight = np.maximum(normals @ towards, 0)
            seen += weight * (placed[:, 2] < nearest[row, column] + 0.012)
            most += weight
        for thing in (array, places, indices, frame, depth):
            thing.release()
        return np.asarray(seen / (most + 1e-9), np.float32)

    def _write(self, name: str, value: bytes, program: moderngl.Program) -> None:
        uniform = program[name]
        assert isinstance(uniform, moderngl.Uniform)
        uniform.write(value)

    def _set(self, name: str, value: float | bool | tuple[float, ...]) -> None:
        uniform = self._program[name]
        assert isinstance(uniform, moderngl.Uniform)
        uniform.value = value
