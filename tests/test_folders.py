"""Dense targets from a folder, on a tiny fake of the layout of NYUv2 and Cityscapes."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader

from mtl_utils import make_weighting
from mtl_utils.datasets import DenseFolder
from mtl_utils.datasets.folders import any_known, known, masked_mean
from mtl_utils.models import HardSharing, UNet
from mtl_utils.training import train

HEIGHT, WIDTH = 8, 12


def fake(root, tasks=("label", "depth", "normal"), counts=(11, 3)):
    """Random arrays as MTAN's archives have them; the image of file i is i / 100 everywhere."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val"), counts, strict=True):
        for folder in ("image", *tasks):
            (root / split / folder).mkdir(parents=True)
        for i in range(count):
            arrays = {
                "image": np.full((HEIGHT, WIDTH, 3), i / 100),
                "label": rng.integers(-1, 7, (HEIGHT, WIDTH)).astype(np.float64),
                "depth": rng.uniform(1, 5, (HEIGHT, WIDTH, 1)).astype(np.float32),
                "normal": rng.standard_normal((HEIGHT, WIDTH, 3)),
            }
            arrays["normal"] /= np.linalg.norm(arrays["normal"], axis=-1, keepdims=True)
            arrays["depth"][0], arrays["normal"][:, 0] = 0, 0
            for folder in ("image", *tasks):
                np.save(root / split / folder / f"{i}.npy", arrays[folder])
    return root


def test_items_have_the_arrays_that_are_stored(tmp_path):
    data = DenseFolder(fake(tmp_path), "train")
    assert (len(data), data.tasks) == (11, ("class", "depth", "normals"))
    image, (classes, depth, normals), masks = data[10]  # by number: not the third, after 1 and 10
    assert image.shape == (3, HEIGHT, WIDTH) and torch.allclose(image, torch.tensor(0.1))
    stored = {f: np.load(tmp_path / "train" / f / "10.npy") for f in ("label", "depth", "normal")}
    assert classes.dtype == torch.int64 and (classes.numpy() == stored["label"]).all()
    np.testing.assert_allclose(depth[0], stored["depth"][..., 0])
    np.testing.assert_allclose(normals, np.moveaxis(stored["normal"], -1, 0), atol=1e-6)
    assert [m.shape for m in masks] == [(HEIGHT, WIDTH)] * 3
    assert (masks[0].numpy() == (stored["label"] != -1)).all()
    assert (~masks[1]).nonzero()[:, 0].unique().tolist() == [0]
    assert (~masks[2]).nonzero()[:, 1].unique().tolist() == [0]


def test_cityscapes_has_no_normals(tmp_path):
    data = DenseFolder(fake(tmp_path, tasks=("label", "depth")), "val")
    image, targets, masks = next(iter(DataLoader(data, batch_size=3)))
    assert data.tasks == ("class", "depth") and image.shape == (3, 3, HEIGHT, WIDTH)
    assert [t.shape for t in targets] == [(3, HEIGHT, WIDTH), (3, 1, HEIGHT, WIDTH)]
    assert [m.dtype for m in masks] == [torch.bool] * 2


def losses(model, image, targets, masks):
    """As the docstring says: means over the known pixels."""
    scores, depth, normals = model(image)
    by_pixel = (
        cross_entropy(scores, targets[0], ignore_index=-1, reduction="none"),
        (depth - targets[1]).abs()[:, 0],
        1 - (normalize(normals, dim=1) * targets[2]).sum(1),
    )
    return torch.stack([masked_mean(p, m) for p, m in zip(by_pixel, masks, strict=True)])


def test_a_training_on_it_ignores_unknown_pixels_and_absent_tasks(tmp_path):
    data = DenseFolder(fake(tmp_path), "train")
    np.save(tmp_path / "train" / "label" / "0.npy", np.full((HEIGHT, WIDTH), -1.0))
    torch.manual_seed(0)
    model = HardSharing(UNet(4), [nn.Conv2d(4, n, 1) for n in (7, 1, 3)])
    weighting = make_weighting("uncertainty", 3)
    optimizer = torch.optim.Adam([*model.parameters(), *weighting.parameters()], lr=0.01)
    history = train(
        model,
        losses,
        DataLoader(data, batch_size=1),
        weighting,
        optimizer,
        epochs=2,
        tasks=data.tasks,
        present=any_known,
        progress=False,
    )
    depth = history[history.task == "depth"].loss.to_numpy()
    assert np.isfinite(history.loss).all() and depth[1] < depth[0]
    image, targets, masks = next(iter(DataLoader(data, batch_size=4)))
    before = losses(model, image, targets, masks)
    targets[1][~masks[1][:, None]] = 1e6  # what stands in an unknown pixel does not count
    torch.testing.assert_close(losses(model, image, targets, masks), before)


def test_known():
    assert known("class", torch.tensor([[0, -1]])).tolist() == [[True, False]]
    assert known("depth", torch.tensor([[[0.0, 2.0]]])).tolist() == [[False, True]]
    assert known("normals", torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1, 1)).tolist() == [[True]]


def test_it_says_which_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*train.image; expected .* 0\.npy"):
        DenseFolder(tmp_path)
    (tmp_path / "train" / "image").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no file \*\.npy in .*image"):
        DenseFolder(tmp_path)
    np.save(tmp_path / "train" / "image" / "0.npy", np.zeros((8, 8, 3)))
    with pytest.raises(FileNotFoundError, match="has no targets; expected some of label/, depth/"):
        DenseFolder(tmp_path)


def test_it_says_which_file_is_missing_or_wrong(tmp_path):
    fake(tmp_path)
    (tmp_path / "train" / "depth" / "4.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 11 images have no file in .*depth; .* 4\.n"):
        DenseFolder(tmp_path)
    data = DenseFolder(tmp_path, "val")
    np.save(tmp_path / "val" / "normal" / "0.npy", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(ValueError, match=r"normal.0\.npy: expected H x W x 3, got shape \(8, 12\)"):
        data[0]
    np.save(tmp_path / "val" / "depth" / "1.npy", np.zeros((4, WIDTH)))
    with pytest.raises(ValueError, match=r"depth.1\.npy: expected the height and width of the"):
        data[1]
