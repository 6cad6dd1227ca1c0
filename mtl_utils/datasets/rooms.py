"""Rendered rooms: from a colour image the class, the depth and the surface normal of every pixel.

A small ray caster. Spheres, boxes and cylinders stand on the floor of a room; a pinhole camera
looks at them, a lamp lights them. Lengths are metres; x points right, y up, z forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count

TASKS = ("class", "depth", "normals")
CLASSES = ("floor", "wall", "sphere", "box", "cylinder")
NOTHING, SPHERE, BOX, CYLINDER = range(4)  # kinds of objects; class = kind + 1
FOCAL = 1.3  # focal length, in halves of the image's width
NEAR = 1e-3  # nothing nearer than this is seen
AT_ONCE = 64  # rooms; their rays stay in the processor's cache
TILE = 0.5  # of the floor


@dataclass(frozen=True)
class Scenes:
    """N rooms with up to J objects each.

    Attributes:
        room: half width, height, and z of the far wall, [N, 3]; the near one is at z = -1.
        kind: of the objects, [N, J]: `NOTHING`, `SPHERE`, `BOX` or `CYLINDER`.
        centre: of the objects, [N, J, 3].
        half: their half extents, [N, J, 3]; a sphere's and a cylinder's radius is the first, half
            of a cylinder's height the second.
        turn: of a box about the vertical, radians, [N, J].
        eye: of the camera, [N, 3].
        yaw, pitch: of the camera, radians, [N]: to the right, and up.
        lamp: [N, 3].
        colours: of floor, walls and objects, [N, 2 + J, 3], in [0, 1].
    """

    room: Tensor
    kind: Tensor
    centre: Tensor
    half: Tensor
    turn: Tensor
    eye: Tensor
    yaw: Tensor
    pitch: Tensor
    lamp: Tensor
    colours: Tensor

    def part(self, rows: slice) -> Scenes:
        """Some of the rooms."""
        return Scenes(**{name: values[rows] for name, values in vars(self).items()})


def draw_scenes(n: int, rng: np.random.Generator, n_objects: int = 6) -> Scenes:
    """Rooms by chance, with two to `n_objects` objects."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, *shape)).astype(np.float32))

    room = torch.stack([uniform(2, 3.5), uniform(2.4, 3.2), uniform(4, 7)], 1)
    kind = torch.from_numpy(rng.integers(SPHERE, CYLINDER + 1, (n, n_objects)))
    count = torch.from_numpy(rng.integers(2, n_objects + 1, (n, 1)))
    kind = torch.where(torch.arange(n_objects) < count, kind, NOTHING)
    half = uniform(0.25, 0.7, n_objects, 3)
    height = torch.where(kind == SPHERE, half[..., 0], half[..., 1])  # all stand on the floor
    across = uniform(-0.8, 0.8, n_objects) * room[:, :1]
    ahead = 1.5 + uniform(0, 1, n_objects) * (room[:, 2:] - 2.2)
    return Scenes(
        room,
        kind,
        torch.stack([across, height, ahead], 2),
        half,
        uniform(0, math.pi, n_objects),
        torch.stack([uniform(-0.8, 0.8), uniform(1.1, 1.9), uniform(-0.8, -0.2)], 1),
        uniform(-0.25, 0.25),
        uniform(-0.35, -0.1),
        torch.stack([uniform(-1.5, 1.5), room[:, 1] - 0.2, uniform(0, 2)], 1),
        torch.cat([uniform(0.35, 0.9, 2, 3), uniform(0.15, 1, n_objects, 3)], 1),
    )


def render(scenes: Scenes, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the cameras see, without noise.

    Args:
        scenes: N of them.
        size: of the images, pixels.

    Returns:
        colours [N, 3, size, size] in [0, 1]; classes [N, size, size], see `CLASSES`; depth along
        the camera's axis in metres [N, 1, size, size]; normals [N, 3, size, size], unit vectors in
        the camera's axes (right, up, forward), turned towards the camera.
    """
    parts = [_render(scenes.part(rows), size) for rows in _slices(len(scenes.eye))]
    colours, classes, depth, normals = (torch.cat(p) for p in zip(*parts, strict=True))
    return colours, classes, depth, normals


def _slices(n: int) -> list[slice]:
    return [slice(first, first + AT_ONCE) for first in range(0, n, AT_ONCE)]


def _render(scenes: Scenes, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps = (torch.arange(size, dtype=torch.float32) + 0.5) / size * 2 - 1
    up, right = torch.meshgrid(-steps, steps, indexing="ij")
    rays = torch.stack([right / FOCAL, up / FOCAL, torch.ones_like(up)], -1).reshape(1, -1, 3)
    pitch, yaw = scenes.pitch[:, None], scenes.yaw[:, None]
    seen = _Seen(scenes, _turned(_tilted(rays, pitch), yaw))  # along a ray, t is the depth
    colours = seen.colours()
    normals = _tilted(_turned(seen.normals, -yaw), -pitch)
    normals = normals / normals.norm(dim=-1, keepdim=True)  # rounding at the rim of spheres

    def image(values: Tensor) -> Tensor:  # [N, P, C] -> [N, C, size, size]
        return values.reshape(len(values), size, size, -1).permute(0, 3, 1, 2)

    classes, depth = image(seen.classes[..., None])[:, 0], image(seen.t[..., None])
    return image(colours), classes, depth, image(normals)


class _Seen:
    """The nearest surface along rays [N, P, 3] from the eye: where (t, in lengths of the ray), its
    normal, its class, and what has which colour."""

    def __init__(self, scenes: Scenes, rays: Tensor) -> None:
        self.scenes, self.rays = scenes, rays
        eye = scenes.eye[:, None]
        high = scenes.room[:, None]
        low = torch.cat([-high[..., :1], 0 * high[..., 1:2], -torch.ones_like(high[..., 2:])], -1)
        _, self.t, _, side = _slabs((high + low) / 2 - eye, (high - low) / 2, rays)
        self.normals = _facing(side, rays)
        self.classes = 1 - ((side == 1) & (rays[..., 1] < 0)).long()
        self.owner = self.classes.clone()  # row of `colours`
        for j in range(scenes.kind.shape[1]):
            for kind, hit in ((SPHERE, _sphere), (BOX, _box), (CYLINDER, _cylinder)):
                rows = (scenes.kind[:, j] == kind).nonzero()[:, 0]
                if len(rows):
                    offset = (scenes.centre[rows, j] - scenes.eye[rows])[:, None]
                    half, turn = scenes.half[rows, j][:, None], scenes.turn[rows, j][:, None]
                    self._keep_nearer(rows, j, kind, *hit(offset, half, turn, rays[rows]))

    def _keep_nearer(self, rows: Tensor, j: int, kind: int, t: Tensor, normals: Tensor) -> None:
        nearer = (t > NEAR) & (t < self.t[rows])
        self.t[rows] = torch.where(nearer, t, self.t[rows])
        self.normals[rows] = torch.where(nearer[..., None], normals, self.normals[rows])
        self.classes[rows] = torch.where(nearer, kind + 1, self.classes[rows])
        self.owner[rows] = torch.where(nearer, 2 + j, self.owner[rows])

    def colours(self) -> Tensor:
        """Lambert's law with some ambient light, and tiles on the floor, [N, P, 3]."""
        points = self.scenes.eye[:, None] + self.t[..., None] * self.rays
        to_lamp = self.scenes.lamp[:, None] - points
        distance = to_lamp.norm(dim=-1)
        light = ((self.normals * to_lamp).sum(-1) / distance).clamp(min=0)
        light = light / (1 + 0.03 * distance**2)
        tiles = (points[..., 0] / TILE).floor() + (points[..., 2] / TILE).floor()
        dark = (tiles % 2 == 1) & (self.classes == 0)
        index = self.owner[..., None].expand(-1, -1, 3)
        own = self.scenes.colours.gather(1, index) * torch.where(dark, 0.75, 1.0)[..., None]
        return (own * (0.25 + 0.85 * light)[..., None]).clamp(0, 1)


# ---- surfaces --------------------------------------------------------------------------------
#
# offset of the centre from the eye [n, 1, 3], half extents [n, 1, 3], turn [n, 1], rays [n, P, 3]
# -> t [n, P], infinite where the ray misses, and normals [n, P, 3]


def _sphere(offset: Tensor, half: Tensor, turn: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    radius = half[..., 0]
    t = _first_root(
        (rays * rays).sum(-1), (rays * offset).sum(-1), (offset * offset).sum(-1) - radius**2
    )
    return t, (_at(t, rays) - offset) / radius[..., None]


def _box(offset: Tensor, half: Tensor, turn: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    own = _turned(rays, -turn)  # in the axes of the box
    enters, leaves, side, _ = _slabs(_turned(offset, -turn), half, own)
    t = torch.where(enters < leaves, enters, math.inf)
    return t, _turned(_facing(side, own), turn)


def _cylinder(offset: Tensor, half: Tensor, turn: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Upright, with a lid; nobody looks at it from below."""
    radius, flat = half[..., 0], torch.tensor([1.0, 0.0, 1.0], dtype=torch.float32)
    level, away = rays * flat, offset * flat
    side = _first_root(
        (level * level).sum(-1), (level * away).sum(-1), (away * away).sum(-1) - radius**2
    )
    height = _at(side, rays)[..., 1] - offset[..., 1]
    side = torch.where(height.abs() <= half[..., 1], side, math.inf)
    lid = (offset[..., 1] + half[..., 1]) / rays[..., 1]
    beside = ((_at(lid, rays) - offset) * flat).norm(dim=-1)
    lid = torch.where((beside <= radius) & (lid > 0) & (rays[..., 1] < 0), lid, math.inf)
    t = torch.minimum(side, lid)
    outwards = (_at(t, rays) - offset) * flat / radius[..., None]
    upwards = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float32)
    return t, torch.where((lid < side)[..., None], upwards, outwards)


def _first_root(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The smaller t with a t^2 - 2 b t + c = 0."""
    inside = b * b - a * c
    return torch.where(inside > 0, (b - inside.clamp(min=0).sqrt()) / a, math.inf)


def _at(t: Tensor, rays: Tensor) -> Tensor:
    """Points of the rays; anything finite where t is not."""
    return t.nan_to_num(0, 0, 0)[..., None] * rays


def _slabs(offset: Tensor, half: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where rays enter and leave a box along the axes, and through which pair of sides (0, 1, 2)
    they do: t and t, [n, P], axis and axis, [n, P]."""
    safe = torch.where(rays.abs() < 1e-9, 1e-9, rays)
    one, two = (offset - half) / safe, (offset + half) / safe
    enters, leaves = torch.minimum(one, two).max(-1), torch.maximum(one, two).min(-1)
    return enters.values, leaves.values, enters.indices, leaves.indices


def _facing(side: Tensor, rays: Tensor) -> Tensor:
    """Unit vectors along an axis, against the ray."""
    axis = torch.nn.functional.one_hot(side, 3)
    return -axis * rays.sign()


def _turned(vectors: Tensor, angle: Tensor) -> Tensor:
    """About the vertical, from forward towards the right."""
    x, y, z = torch.broadcast_tensors(*vectors.unbind(-1), angle)[:3]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def _tilted(vectors: Tensor, angle: Tensor) -> Tensor:
    """About the axis to the right, from forward upwards."""
    x, y, z = torch.broadcast_tensors(*vectors.unbind(-1), angle)[:3]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x, cos * y + sin * z, cos * z - sin * y], -1)


# ---- the data set ------------------------------------------------------------------------------


def rooms(
    n_train: int = 1_000,
    n_val: int = 200,
    n_test: int = 400,
    size: int = 64,
    noise: Sequence[float] = (0.0, 0.0, 0.0),
    centimetres: bool = False,
    seed: int = 0,
) -> MultiTaskData:
    """Images of rooms with objects; tasks: class, depth and surface normal of every pixel.

    Every room is drawn anew, so that no two splits share one. The images have some sensor noise
    (standard deviation 0.02).

    Args:
        n_train, n_val, n_test: images in each split.
        size: of the images, pixels to a side, 8 or more.
        noise: of the labels of training and validation images, by task; test labels are clean.
            Class: share of pixels whose class is drawn anew from all five. Depth: standard
            deviation in metres. Normals: standard deviation of what is added to each of their three
            components before they are scaled to length 1 again.
        centimetres: depth in centimetres instead of metres.
        seed: of rooms and noise.

    Returns:
        inputs [N, 3, size, size] in [0, 1]; classes [N, size, size], int64, see `info["classes"]`;
        depth along the camera's axis, [N, 1, size, size]; normals [N, 3, size, size], unit vectors
        in the camera's axes (right, up, forward).

    Raises:
        ValueError: a count below 1, a size below 8, noise that is negative or not of three numbers,
            or a share above 1.

    Source: rendered by this module. The setting, three dense tasks of different kind, is that of
    Kendall, Gal, Cipolla, CVPR 2018, arXiv 1705.07115.

    >>> data = rooms(2, 1, 1, size=16)
    >>> data.tasks, [tuple(t.shape) for t in data.train]
    (('class', 'depth', 'normals'), [(2, 3, 16, 16), (2, 16, 16), (2, 1, 16, 16), (2, 3, 16, 16)])
    """
    counts = {"train": n_train, "val": n_val, "test": n_test}
    for split, count in counts.items():
        check_count(f"n_{split}", count)
    check_count("size", size, least=8)
    if len(noise) != 3 or min(noise) < 0 or noise[0] > 1:
        raise ValueError(
            f"noise: expected a share of pixels, metres and a length, at least 0, got {noise!r}"
        )
    splits = {}
    for split, rng in zip(counts, np.random.default_rng(seed).spawn(3), strict=True):
        images, classes, depth, normals = render(draw_scenes(counts[split], rng), size)
        images = (images + 0.02 * _normal(rng, images)).clamp(0, 1)
        if split != "test":
            classes, depth, normals = _disturbed(classes, depth, normals, noise, rng)
        depth = 100 * depth if centimetres else depth
        splits[split] = (as_float(images), classes, as_float(depth), as_float(normals))
    return MultiTaskData(
        "rooms",
        TASKS,
        **splits,
        source="rendered by mtl_utils",
        info={"classes": CLASSES, "depth in": "cm" if centimetres else "m"},
    )


def _disturbed(
    classes: Tensor,
    depth: Tensor,
    normals: Tensor,
    noise: Sequence[float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    anew = torch.from_numpy(rng.random(classes.shape) < noise[0])
    drawn = torch.from_numpy(rng.integers(0, len(CLASSES), classes.shape))
    normals = normals + noise[2] * _normal(rng, normals)
    return (
        torch.where(anew, drawn, classes),
        depth + noise[1] * _normal(rng, depth),
        normals / normals.norm(dim=1, keepdim=True),
    )


def _normal(rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(like.shape, np.float32))
