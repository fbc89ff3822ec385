import numpy as np
import pytest
import torch

from cutlayer.data import arrays, npz
from cutlayer.errors import DataError, NumericsError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


def saved(tmp_path, **content):
    path = tmp_path / "data.npz"
    np.savez(path, **content)
    return path


def test_npz_with_every_split(tmp_path):
    path = saved(
        tmp_path,
        x_train=IMAGES,
        y_train=LABELS,
        x_val=IMAGES[:2],
        y_val=LABELS[:2],
        x_test=IMAGES[:1],
        y_test=LABELS[:1],
    )
    source = npz(path)
    assert {split: pool.ids.tolist() for split, pool in source.splits.items()} == {
        "train": [0, 1, 2, 3, 4, 5],
        "valid": [6, 7],
        "test": [8],
    }
    train = source.splits["train"]
    assert train.fields["x"].shape == (6, 3, 4, 4)
    assert torch.equal(train.fields["x"], torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255)
    assert train.fields["y"].dtype == torch.int64


def test_npz_with_other_names_and_without_splits(tmp_path):
    split_first = saved(tmp_path, train_images=IMAGES, train_labels=LABELS[:, None])
    assert npz(split_first, x="images", y="labels").splits["train"].labels().tolist() == LABELS.tolist()
    whole = saved(tmp_path, images=IMAGES, labels=LABELS, site=np.array(list("aabbcc")))
    held = npz(whole, x="images", y="labels", about=("site",)).split_rows(by="site")
    assert held.roles["client"] == ("a", "b", "c")


def test_npz_with_several_fields(tmp_path):
    path = saved(tmp_path, image_train=IMAGES, record_train=np.zeros((6, 3)), y_train=LABELS)
    held = npz(path, x=("image", "record")).split_columns({"radiology": ["image"], "clinic": ["record"]})
    assert held.fields("radiology")["x"].shape == (3, 4, 4)


def test_npz_without_labels(tmp_path):
    assert set(npz(saved(tmp_path, x_train=IMAGES), y=None).splits["train"].fields) == {"x"}


def test_damaged_npz(tmp_path):
    path = saved(tmp_path, x_train=IMAGES, y_train=LABELS)
    content = path.read_bytes()
    for broken in (
        content[: len(content) // 2],
        b"no archive at all",
        b"",
        content[:200] + b"\0" * 40 + content[240:],
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"data\.npz (is damaged|cannot be read)"):
            npz(path)


def test_npz_that_holds_something_else(tmp_path):
    with pytest.raises(DataError, match="never loaded"):
        npz(saved(tmp_path, x_train=np.array([{}, []], object), y_train=LABELS))
    with pytest.raises(DataError, match=r"no training rows of 'x'.*keys X_train.*did you mean 'X_train'"):
        npz(saved(tmp_path, X_train=IMAGES))
    with pytest.raises(DataError, match="lacks y of split 'test'"):
        npz(saved(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES))
    with pytest.raises(DataError, match="no file"):
        npz(tmp_path / "nowhere.npz")
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="is not an"):
        npz(tmp_path / "one.npy")


def test_own_ids_and_descriptions():
    source = arrays(
        IMAGES,
        LABELS,
        ids={"train": np.array(list("abcdef"))},
        about={"train": {"site": np.array([1, 1, 2, 2, 3, 3])}},
    )
    held = source.split_rows(by="site")
    assert held.party("2").splits["train"].ids.tolist() == ["c", "d"]


def test_tensors_and_several_fields():
    source = arrays({"image": torch.zeros(4, 3, 2, 2), "record": np.zeros((4, 5))}, torch.arange(4))
    assert set(source.split_rows(2).fields("client")) == {"image", "record", "y"}


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: arrays(IMAGES, LABELS[:4]), DataError, "'train' differ in length; got x: 6 rows, y: 4 rows"),
        (lambda: arrays(IMAGES[:0]), DataError, "'train' is empty"),
        (lambda: arrays(IMAGES, LABELS, y_test=LABELS), DataError, "y_test is given without x_test"),
        (lambda: arrays({}, LABELS), DataError, "names other than 'y'"),
        (lambda: arrays({"y": IMAGES}), DataError, "names other than 'y'"),
        (lambda: arrays(IMAGES, ids={"test": LABELS}), DataError, "'test', which has no features"),
        (lambda: arrays(IMAGES, ids={"train": LABELS}), DataError, "must be unique"),
        (
            lambda: arrays(IMAGES, None, IMAGES, ids={"test": np.arange(6)}),
            DataError,
            "splits share ids; got 0, 1",
        ),
        (lambda: arrays(np.array([[0.0, np.nan]])), NumericsError, "'x_train' holds NaN.*row 0"),
        (lambda: arrays(np.array(["a"], object)), DataError, "object"),
    ],
)
def test_what_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()
