import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cutlayer.data import dataset, images
from cutlayer.errors import DataError


def save(path, shape=(6, 4, 3), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("lazy", [False, True])
def test_a_folder_per_class(tmp_path, lazy):
    pixels = save(tmp_path / "cat" / "one.png")
    save(tmp_path / "dog" / "two.PNG")
    save(tmp_path / "dog" / "three.jpg")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    source = images(tmp_path, lazy=lazy)
    assert source.classes == ("cat", "dog")
    assert source.splits["train"].ids.tolist() == ["one", "three", "two"]
    assert source.splits["train"].labels().tolist() == [0, 1, 1]
    batch = source.split_rows(1).example("client", rows=3)
    assert batch["x"].shape == (3, 3, 6, 4) and batch["x"].dtype == torch.float32
    assert torch.equal(batch["x"][0], torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


def test_splits_grey_images_and_repeated_names(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "1.png", (5, 5))
    source = images(tmp_path, size=(8, 6))
    assert source.splits["train"].fields["x"].shape == (2, 1, 8, 6)
    assert source.splits["test"].ids.tolist() == [2, 3]


def test_one_colour_image_makes_all_colour(tmp_path):
    save(tmp_path / "a" / "1.png", (5, 5))
    save(tmp_path / "a" / "2.png", (5, 5, 3))
    assert images(tmp_path).splits["train"].fields["x"].shape == (2, 3, 5, 5)


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folder per class"):
        images(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="there are no images"):
        images(tmp_path)
    save(tmp_path / "a" / "1.png", (5, 5))
    save(tmp_path / "a" / "2.png", (6, 5))
    with pytest.raises(DataError, match="differ in size; got 5x5, 6x5; say size"):
        images(tmp_path)
    content = (tmp_path / "a" / "2.png").read_bytes()
    (tmp_path / "a" / "2.png").write_bytes(content[:60])
    with pytest.raises(DataError, match=r"2\.png is damaged.*take it out of the folder"):
        images(tmp_path, size=5)
    (tmp_path / "a" / "2.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"2\.png cannot be read.*write the image again"):
        images(tmp_path)


def test_bad_splits(tmp_path):
    save(tmp_path / "test" / "a" / "1.png")
    with pytest.raises(DataError, match="no folder 'train'"):
        images(tmp_path)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in"):
        images(tmp_path)
    save(tmp_path / "train" / "a" / "1.png")
    save(tmp_path / "test" / "b" / "1.png")
    with pytest.raises(DataError, match="classes that 'train' lacks; got b"):
        images(tmp_path)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a" / "1.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r'pip install "cutlayer\[images\]"'):
        images(tmp_path)


def test_dataset_with_labels_given_reads_no_item_to_deal():
    class Items:
        readings = 0

        def __len__(self):
            return 20

        def __getitem__(self, i):
            self.readings += 1
            return torch.zeros(3), i % 2

    items = Items()
    source = dataset(items, train_labels=np.arange(20) % 2)
    source.hold_out().split_rows(2, by="dirichlet")
    assert items.readings <= 2


def test_dataset_must_be_map_style():
    with pytest.raises(DataError, match="train dataset is not map-style; got generator"):
        dataset(i for i in range(3))
