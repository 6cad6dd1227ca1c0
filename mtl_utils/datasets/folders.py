"""NYUv2 or Cityscapes from a local folder, in the layout in which multi-task papers share them.

    nyuv2/                          cityscapes/
        train/                          train/
            image/0.npy, 1.npy, ...         image/0.npy, ...
            label/0.npy, ...                label/0.npy, ...
            depth/0.npy, ...                depth/0.npy, ...
            normal/0.npy, ...           val/
        val/                                ...
            ...

That is how the authors of MTAN (Liu, Johns, Davison, CVPR 2019) preprocessed both: an array a
file, H x W x channels, or H x W. Nothing downloads: their repository, lorenmt/mtan, says where the
archives are and under which terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

FOLDERS = {"class": "label", "depth": "depth", "normals": "normal"}
CHANNELS = {"depth": 1, "normals": 3}
UNKNOWN = -1  # label of a pixel without a class
Item = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


class DenseFolder(Dataset[Item]):
    """Images with a class, a depth and a normal for every pixel; tasks whose folder is there.

    Args:
        root: the folder that holds `train` and `val`.
        split: "train" or "val", or another folder in `root`.

    Attributes:
        tasks: those of "class", "depth" and "normals" that have a folder.

    Item `i` is (image, targets, masks), which a `DataLoader` collates as they are:

    * image [3, H, W], as stored, which is [0, 1] in both archives;
    * targets, one for each task: classes [H, W], int64, -1 where unknown; depth [1, H, W], in
      metres (NYUv2) or inverse (Cityscapes), 0 where unknown; normals [3, H, W], unit vectors, 0
      where unknown;
    * masks, one for each task: which pixels are known, booleans [H, W].

    Raises:
        FileNotFoundError: a folder is missing, or an image has no file for one of the tasks.
        ValueError: an array has another shape than is told above.

    Example:
        >>> rooms = DenseFolder("nyuv2", "train")                        # doctest: +SKIP
        >>> loader = DataLoader(rooms, batch_size=8, shuffle=True)       # doctest: +SKIP
        >>> history = train(model, losses, loader, weighting, optimizer, epochs=10,
        ...                 tasks=rooms.tasks, present=any_known)        # doctest: +SKIP

    where `losses(model, image, targets, masks)` averages with `masked_mean`.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.folder = Path(root).expanduser() / split
        images = self.folder / "image"
        if not images.is_dir():
            raise FileNotFoundError(
                f"root, split: there is no folder {images}; expected {self.folder} to hold image/ "
                f"and some of {_listed(FOLDERS.values())}, with files 0.npy, 1.npy, ... in each"
            )
        self.names = sorted((path.name for path in images.glob("*.npy")), key=_by_number)
        if not self.names:
            raise FileNotFoundError(f"root, split: no file *.npy in {images}")
        self.tasks = tuple(t for t, name in FOLDERS.items() if (self.folder / name).is_dir())
        if not self.tasks:
            raise FileNotFoundError(
                f"root, split: {self.folder} has no targets; expected some of "
                f"{_listed(FOLDERS.values())} beside image/"
            )
        for task in self.tasks:
            there = {path.name for path in (self.folder / FOLDERS[task]).glob("*.npy")}
            if missing := [name for name in self.names if name not in there]:
                raise FileNotFoundError(
                    f"root, split: {len(missing)} of {len(self.names)} images have no file in "
                    f"{self.folder / FOLDERS[task]}; the first is {missing[0]}"
                )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        name = self.names[index]
        image = _channels_first(self.folder / "image" / name, 3)
        targets = tuple(self._target(task, name) for task in self.tasks)
        for task, target in zip(self.tasks, targets, strict=True):
            if target.shape[-2:] != image.shape[-2:]:
                raise ValueError(
                    f"{self.folder / FOLDERS[task] / name}: expected the height and width of the "
                    f"image, {tuple(image.shape[-2:])}, got {tuple(target.shape[-2:])}"
                )
        pairs = zip(self.tasks, targets, strict=True)
        return image, targets, tuple(known(task, target) for task, target in pairs)

    def _target(self, task: str, name: str) -> Tensor:
        path = self.folder / FOLDERS[task] / name
        if task != "class":
            return _channels_first(path, CHANNELS[task])
        labels = _channels_first(path, 1)[0]
        return torch.where(labels < 0, UNKNOWN, labels).long()


def known(task: str, target: Tensor) -> Tensor:
    """Which pixels have a target: a class of 0 or more, a depth or a normal that is not 0.

    Args:
        task: "class", "depth" or "normals".
        target: [..., H, W] of classes, else [..., channels, H, W].

    Returns:
        booleans [..., H, W].
    """
    return target >= 0 if task == "class" else (target != 0).any(-3)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is true; NaN where it is nowhere.

    >>> masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
    tensor(1.5000)
    """
    return torch.where(mask, values, 0).sum() / mask.sum()


def any_known(image: Tensor, targets: tuple[Tensor, ...], masks: tuple[Tensor, ...]) -> list[bool]:
    """Which tasks have a target anywhere in a batch: `present` of `mtl_utils.training.train`."""
    return [bool(mask.any()) for mask in masks]


def _by_number(name: str) -> tuple[int, str]:
    """2.npy stands before 10.npy."""
    stem = name.removesuffix(".npy")
    return (int(stem) if stem.isdigit() else 0, name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{name}/" for name in names)


def _channels_first(path: Path, channels: int) -> Tensor:
    """An array H x W x channels as [channels, H, W], of torch's default number type; with one
    channel it may be H x W."""
    array = np.load(path)
    if channels == 1 and array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] != channels:
        raise ValueError(f"{path}: expected H x W x {channels}, got shape {array.shape}")
    moved = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return torch.as_tensor(moved, dtype=torch.get_default_dtype())
