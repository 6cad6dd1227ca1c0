"""Rendered rooms: depth and normals against closed forms, label noise, splits."""

import math

import numpy as np
import pytest
import torch

from mtl_utils.datasets import rooms
from mtl_utils.datasets.rooms import (
    BOX,
    CYLINDER,
    FOCAL,
    NOTHING,
    SPHERE,
    Scenes,
    draw_scenes,
    render,
)

SIZE = 33  # odd: a pixel looks straight ahead
MIDDLE = SIZE // 2
EYE = (0.0, 1.5, 0.0)


def scene(kind=NOTHING, centre=(0, 0, 0), half=(1, 1, 1), turn=0.0, yaw=0.0, pitch=0.0):
    """A room 4 wide, 3 high, with its far wall 5 ahead of the camera, and one object."""

    def row(*values):
        return torch.tensor([values], dtype=torch.float32)

    return Scenes(
        room=row(2.0, 3.0, 5.0),
        kind=torch.tensor([[kind]]),
        centre=row(*centre)[None],
        half=row(*half)[None],
        turn=row(turn),
        eye=row(*EYE),
        yaw=row(yaw)[0],
        pitch=row(pitch)[0],
        lamp=row(0.0, 2.8, 0.0),
        colours=torch.tensor([[[0.5] * 3, [0.6] * 3, [0.9, 0.1, 0.1]]]),
    )


def slopes():
    """How far to the right and up a ray goes for each metre ahead, [SIZE]."""
    steps = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    return steps / FOCAL, -steps / FOCAL


def test_a_wall_seen_head_on_is_as_far_at_every_pixel():
    _, classes, depth, normals = render(scene(), SIZE)
    right, up = slopes()
    far = (right[None].abs() < 2 / 5) & (up[:, None].abs() < 1.5 / 5)
    assert far.sum() > 100
    torch.testing.assert_close(depth[0, 0][far], torch.full((int(far.sum()),), 5.0))
    assert (classes[0][far] == 1).all()
    for value, wanted in zip(normals[0], (0.0, 0.0, -1.0), strict=True):
        assert (value[far] == wanted).all()


def test_a_wall_is_lit_by_the_law_of_lambert():
    """Colour 0.6, ambient 0.25, and the lamp's 0.85 times the cosine over 1 + 0.03 distance^2."""
    images, _, _, _ = render(scene(), SIZE)  # the middle pixel: the wall 5 away, lamp 1.3 above
    distance = math.hypot(5, 1.3)
    wanted = 0.6 * (0.25 + 0.85 * 5 / distance / (1 + 0.03 * distance**2))
    torch.testing.assert_close(images[0, :, MIDDLE, MIDDLE], torch.full((3,), wanted))


def test_floor_and_side_walls_lie_where_the_rays_meet_them():
    _, classes, depth, normals = render(scene(), SIZE)
    right, up = slopes()
    floor = classes[0] == 0
    wanted = (1.5 / -up)[:, None].expand(SIZE, SIZE)
    torch.testing.assert_close(depth[0, 0][floor], wanted[floor])
    assert (normals[0, 1][floor] == 1).all()
    left = normals[0, 0] == 1  # the left wall looks to the right
    wanted = (2 / -right)[None].expand(SIZE, SIZE)
    assert left.sum() > 20 and (classes[0][left] == 1).all()
    torch.testing.assert_close(depth[0, 0][left], wanted[left])


@pytest.mark.parametrize("pitch", [-0.2, 0.2])
def test_a_tilted_camera_sees_the_plane_of_the_far_wall(pitch):
    """In the camera's axes the wall is the plane n'p = -5 with n = (0, sin, -cos)."""
    _, _, depth, normals = render(scene(pitch=pitch), SIZE)
    normal = torch.tensor([0.0, math.sin(pitch), -math.cos(pitch)])
    right, up = slopes()
    far = (normals[0] - normal[:, None, None]).norm(dim=0) < 1e-5
    assert far[MIDDLE, MIDDLE] and far.sum() > 50
    along = normal[1] * up[:, None] + normal[2] + 0 * right[None]
    torch.testing.assert_close(depth[0, 0][far], (-5 / along)[far])


def test_a_camera_turned_to_the_right_sees_the_wall_recede_there():
    _, _, depth, normals = render(scene(yaw=0.1), SIZE)
    normal = torch.tensor([math.sin(0.1), 0.0, -math.cos(0.1)])
    torch.testing.assert_close(normals[0, :, MIDDLE, MIDDLE], normal)
    right = slopes()[0][MIDDLE - 3 : MIDDLE + 4]
    wanted = -5 / (normal[0] * right + normal[2])
    torch.testing.assert_close(depth[0, 0, MIDDLE, MIDDLE - 3 : MIDDLE + 4], wanted)
    assert depth[0, 0, MIDDLE, MIDDLE + 3] > depth[0, 0, MIDDLE, MIDDLE - 3]


def test_a_sphere_is_a_sphere():
    centre = torch.tensor([0.2, 1.4, 3.0])
    images, classes, depth, normals = render(scene(SPHERE, centre.tolist(), (0.6, 1, 1)), SIZE)
    assert classes[0, MIDDLE, MIDDLE] == 2
    hit = classes[0] == 2
    right, up = slopes()
    t = depth[0, 0]
    points = torch.stack([t * right[None], 1.5 + t * up[:, None], t])
    away = points - centre[:, None, None]
    torch.testing.assert_close(away.norm(dim=0)[hit], torch.full((int(hit.sum()),), 0.6))
    torch.testing.assert_close(normals[0][:, hit], away[:, hit] / 0.6, atol=1e-5, rtol=0)
    # its outline is that of a cone around the direction of its centre
    to_centre = centre - torch.tensor(EYE)
    rays = torch.stack([right[None] + 0 * t, up[:, None] + 0 * t, torch.ones_like(t)])
    cosine = (rays * to_centre[:, None, None]).sum(0) / rays.norm(dim=0) / to_centre.norm()
    widest = math.sqrt(1 - (0.6 / to_centre.norm().item()) ** 2)
    assert torch.equal(hit, cosine > widest)
    assert (images[0, 0][hit] > images[0, 1][hit]).all()  # it is red


def test_a_box_seen_head_on_and_turned():
    _, classes, depth, normals = render(scene(BOX, (0, 1.5, 3), (0.5, 0.5, 0.5)), SIZE)
    hit = classes[0] == 3
    right, up = slopes()
    assert torch.equal(hit, (right[None].abs() < 0.2) & (up[:, None].abs() < 0.2))  # 0.5 at 2.5
    torch.testing.assert_close(depth[0, 0][hit], torch.full((int(hit.sum()),), 2.5))
    assert (normals[0, 2][hit] == -1).all()
    turned = scene(BOX, (0, 1.5, 3), (0.5, 0.5, 0.5), turn=math.pi / 4)
    _, classes, depth, normals = render(turned, SIZE)
    assert depth[0, 0, MIDDLE, MIDDLE] == pytest.approx(
        3 - 0.5 * math.sqrt(2), abs=1e-4
    )  # its edge
    sides = normals[0][:, classes[0] == 3]
    torch.testing.assert_close(sides[0].abs(), torch.full_like(sides[0], math.sqrt(0.5)))
    torch.testing.assert_close(sides[2], torch.full_like(sides[0], -math.sqrt(0.5)))
    row = slice(MIDDLE - 2, MIDDLE + 3)
    assert (normals[0, 0, MIDDLE, row].sign() == torch.tensor([-1, -1, 1, 1, 1])).sum() >= 4


def test_a_cylinder_has_a_round_side_and_a_flat_lid():
    _, classes, depth, normals = render(scene(CYLINDER, (0, 0.5, 2.5), (0.5, 0.5, 1)), SIZE)
    right, up = slopes()
    hit, t = classes[0] == 4, depth[0, 0]
    lid = hit & (normals[0, 1] == 1)
    side = hit & ~lid
    assert lid.sum() > 10 and side.sum() > 10
    height = 1.5 + t * up[:, None]
    torch.testing.assert_close(height[lid], torch.ones(int(lid.sum())))
    radius = ((t * right[None]) ** 2 + (t - 2.5) ** 2).sqrt()
    torch.testing.assert_close(radius[side], torch.full((int(side.sum()),), 0.5))
    assert radius[lid].max() <= 0.5 and height[side].max() <= 1 and height[side].min() >= 0
    assert (normals[0, 1][side] == 0).all()


def test_what_stands_in_front_hides_what_is_behind():
    near = scene(BOX, (0, 1.5, 3), (0.5, 0.5, 0.5))
    behind = scene(SPHERE, (0, 1.5, 4.2), (0.5, 1, 1))
    for first, second in ((near, behind), (behind, near)):
        both = Scenes(
            **{
                name: torch.cat([getattr(first, name), getattr(second, name)], 1)
                if name in ("kind", "centre", "half", "turn")
                else value
                for name, value in vars(near).items()
                if name != "colours"
            },
            colours=torch.full((1, 4, 3), 0.5),
        )
        _, classes, depth, _ = render(both, SIZE)
        assert classes[0, MIDDLE, MIDDLE] == 3
        assert depth[0, 0, MIDDLE, MIDDLE] == pytest.approx(2.5)


def test_rooms_by_chance_are_whole():
    images, classes, depth, normals = render(draw_scenes(150, np.random.default_rng(0)), 32)
    for values in (images, depth, normals):
        assert torch.isfinite(values).all()
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(150, 32, 32))
    assert 0 <= images.min() and images.max() <= 1
    assert 0.3 < depth.min() and depth.max() < 12
    shares = torch.bincount(classes.flatten()) / classes.numel()
    assert len(shares) == 5 and (shares > 0.01).all()
    # every surface is turned towards the eye
    steps = (torch.arange(32) + 0.5) / 16 - 1
    up, right = torch.meshgrid(-steps, steps, indexing="ij")
    rays = torch.stack([right / FOCAL, up / FOCAL, torch.ones_like(up)])
    assert ((normals * rays).sum(1) < 1e-5).all()


def test_sizes_agree():
    """A pixel of a coarse image is the middle one of the 3 x 3 of a finer one."""
    scenes = draw_scenes(3, np.random.default_rng(1))
    coarse, fine = render(scenes, 16), render(scenes, 48)
    for a, b in zip(coarse, fine, strict=True):
        torch.testing.assert_close(a, b[..., 1::3, 1::3], atol=1e-4, rtol=1e-4)


# ---- the data set ----------------------------------------------------------------------------


def test_shapes_seeds_and_splits():
    data = rooms(4, 3, 2, size=16)
    for split, n in (("train", 4), ("val", 3), ("test", 2)):
        x, classes, depth, normals = getattr(data, split)
        assert x.shape == normals.shape == (n, 3, 16, 16)
        assert classes.shape == (n, 16, 16) and depth.shape == (n, 1, 16, 16)
        assert classes.dtype == torch.int64 and x.dtype == torch.get_default_dtype()
    again, other = rooms(4, 3, 2, size=16), rooms(4, 3, 2, size=16, seed=1)
    assert all(map(torch.equal, data.train, again.train))
    assert not torch.equal(data.train[0], other.train[0])
    assert not torch.equal(data.train[2][:2], data.test[2])
    longer = rooms(4, 5, 2, size=16)  # a split does not depend on the size of another
    assert all(map(torch.equal, data.test, longer.test))


@pytest.mark.parametrize("task", [0, 1, 2])
def test_noise_falls_on_the_training_and_validation_labels_of_its_task(task):
    noise = [0.0, 0.0, 0.0]
    noise[task] = 0.3
    clean, noisy = rooms(20, 5, 5, size=16), rooms(20, 5, 5, size=16, noise=noise)
    for split in ("train", "val"):
        for k, (a, b) in enumerate(zip(getattr(clean, split), getattr(noisy, split), strict=True)):
            assert torch.equal(a, b) == (k != task + 1)
    assert all(map(torch.equal, clean.test, noisy.test))


def test_noise_is_as_strong_as_it_says():
    clean, noisy = rooms(50, 1, 1, size=16), rooms(50, 1, 1, size=16, noise=(0.5, 0.25, 0.1))
    _, classes, depth, normals = clean.train
    _, noisy_classes, noisy_depth, noisy_normals = noisy.train
    assert (classes != noisy_classes).double().mean() == pytest.approx(0.5 * 0.8, abs=0.02)
    assert (noisy_depth - depth).std().item() == pytest.approx(0.25, rel=0.03)
    torch.testing.assert_close(noisy_normals.norm(dim=1), torch.ones(50, 16, 16))
    angle = (normals * noisy_normals).sum(1).clamp(-1, 1).arccos()
    # two components of 0.1 at right angles: the mean of a Rayleigh distribution
    assert angle.mean().item() == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.03)


def test_centimetres():
    metres, centimetres = rooms(2, 1, 1, size=16), rooms(2, 1, 1, size=16, centimetres=True)
    torch.testing.assert_close(centimetres.train[2], 100 * metres.train[2])
    assert centimetres.info["depth in"] == "cm"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_train": 0}, "n_train"),
        ({"size": 4}, "size"),
        ({"noise": (0, 0)}, "noise"),
        ({"noise": (0, -1, 0)}, "noise"),
        ({"noise": (2, 0, 0)}, "noise"),
    ],
)
def test_bad_options_are_refused_by_name(options, name):
    with pytest.raises(ValueError, match=name):
        rooms(**{"n_train": 2, "n_val": 1, "n_test": 1, "size": 16} | options)
