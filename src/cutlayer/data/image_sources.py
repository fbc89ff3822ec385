"""Sources of one file or item per record: folders of images, map-style datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.ids import repeated
from cutlayer.data.lazy import Field, LazyRows, MapDataset
from cutlayer.data.pool import Pool
from cutlayer.data.records import SPLITS
from cutlayer.data.source import Source
from cutlayer.data.tensors import ArrayLike
from cutlayer.data.tensors import labels as as_labels
from cutlayer.errors import DataError

__all__ = ["dataset", "images"]

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MEND = "write the image again or take it out of the folder"


def images(
    folder: str | Path,
    size: int | tuple[int, int] | None = None,
    *,
    lazy: bool = False,
    standardize: bool = False,
) -> Source:
    """Read a folder of images, ``folder/<class>/*.png`` or ``folder/train/<class>/*.jpg``.

    Images become float32 [channels, height, width] from 0 to 1: one channel if all are grey, else three.
    Ids are the file names without ending, where they are unique, else numbers in the order of the paths.

    Args:
        folder: Holds a folder per class, or ``train`` and perhaps ``valid`` and ``test`` that do.
        size: Height and width to bring images to; left out: all must have the same size.
        lazy: Read images batch by batch instead of keeping them in memory.
        standardize: Scale at each party by its own training rows; not with ``lazy``.

    Raises:
        DataError: Pillow is missing, there are no images, one is damaged, or sizes differ.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    roots = {split: folder / split for split in SPLITS if (folder / split).is_dir()} or {"train": folder}
    if "train" not in roots:
        raise DataError(f"{folder} has no folder 'train'", got=", ".join(roots))
    classes = _folders(roots["train"])
    paths = {split: _files(root, classes) for split, root in roots.items()}
    ids = _ids([path for files in paths.values() for path, _ in files])
    reader = _Reader.of([path for files in paths.values() for path, _ in files], size)
    splits: dict[str, Pool] = {}
    done = 0
    for split, files in paths.items():
        if not files:
            raise DataError(
                f"there are no images in {roots[split]}", expected="a folder per class of png or jpg"
            )
        rows = _ImageRows(tuple(path for path, _ in files), reader)
        x: Field = LazyRows(rows).fields()["x"] if lazy else torch.stack([row["x"] for row in rows.all()])
        y = torch.tensor([label for _, label in files])
        splits[split] = Pool(ids=ids[done : done + len(files)], fields={"x": x, "y": y})
        done += len(files)
    return Source(splits=splits, classes=classes, standardize=standardize)


def dataset(
    train: MapDataset,
    test: MapDataset | None = None,
    valid: MapDataset | None = None,
    *,
    train_labels: ArrayLike | None = None,
    classes: tuple[str, ...] = (),
) -> Source:
    """Use any map-style dataset; its items are read and stacked batch by batch.

    Args:
        train: Gives ``(x, y)`` or a dict of named values per item.
        test: The same of test items.
        valid: The same of validation items.
        train_labels: The training labels, [rows]. Where rows are dealt or held out by label and they are
            left out, every training item is read once to learn them.
        classes: Names of the classes.

    Raises:
        DataError: A dataset is empty or its items are neither pairs nor dicts of tensors and numbers.
    """
    splits: dict[str, Pool] = {}
    numbered = 0
    for split, items in (("train", train), ("valid", valid), ("test", test)):
        if items is None:
            continue
        if not isinstance(items, MapDataset):
            raise DataError(
                f"the {split} dataset is not map-style",
                got=type(items).__name__,
                expected="__len__ and __getitem__",
            )
        fields: dict[str, Field] = dict(LazyRows(items).fields())
        if split == "train" and train_labels is not None:
            fields["y"] = as_labels(train_labels, "train_labels")
        splits[split] = Pool(ids=np.arange(numbered, numbered + len(items)), fields=fields)
        numbered += len(items)
    return Source(splits=splits, classes=classes)


@dataclass(frozen=True)
class _Reader:
    """Reads one image to float32 [channels, height, width]."""

    mode: str
    height: int
    width: int
    resize: bool

    @classmethod
    def of(cls, paths: list[Path], size: int | tuple[int, int] | None) -> _Reader:
        if not paths:
            raise DataError("there are no images", expected="a folder per class of png or jpg files")
        grey, sizes = True, set()
        for path in paths:
            with _open(path) as image:
                grey = grey and image.mode in ("1", "L", "LA")
                sizes.add((image.height, image.width))
        if size is None and len(sizes) > 1:
            raise DataError(
                "images differ in size",
                got=", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:4]),
                todo="say size=64, for instance",
            )
        height, width = sizes.pop() if size is None else (size, size) if isinstance(size, int) else size
        return cls("L" if grey else "RGB", height, width, size is not None)

    def read(self, path: Path) -> Tensor:
        with _open(path) as image:
            try:
                picture = image.convert(self.mode)
                if self.resize:
                    picture = picture.resize((self.width, self.height))
                pixels = np.array(picture, dtype=np.uint8)
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"image {path} is damaged", got=str(error), todo=_MEND) from error
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)


@dataclass(frozen=True)
class _ImageRows:
    """Image files as a map-style dataset."""

    paths: tuple[Path, ...]
    reader: _Reader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.reader.read(self.paths[index])}

    def all(self) -> list[dict[str, Tensor]]:
        return [self[index] for index in range(len(self))]


def _open(path: Path) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError("reading images needs Pillow", todo='pip install "cutlayer[images]"') from None
    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"image {path} cannot be read", got=str(error), todo=_MEND) from error


def _folders(root: Path) -> tuple[str, ...]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{root} has no folder per class", expected=f"{root.name}/<class>/*.png or *.jpg")
    return tuple(names)


def _files(root: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    strangers = sorted(set(_folders(root)) - set(classes))
    if strangers:
        raise DataError(f"{root} has classes that 'train' lacks", got=", ".join(strangers))
    return [
        (path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in sorted((root / name).iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]


def _ids(paths: list[Path]) -> np.ndarray:
    stems = np.array([path.stem for path in paths], dtype=str)
    return np.arange(len(paths)) if len(repeated(stems)) else stems
