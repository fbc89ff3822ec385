import numpy as np
import pytest
import torch

from cutlayer.data.tensors import features, labels
from cutlayer.errors import DataError, NumericsError


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((2, 8, 6, 3), (2, 3, 8, 6)),
        ((2, 3, 8, 6), (2, 3, 8, 6)),
        ((2, 8, 6), (2, 1, 8, 6)),
        ((2, 8), (2, 8)),
    ],
)
def test_uint8_images_become_float_channels_first(shape, becomes):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    x = features(pixels)
    assert x.shape == becomes and x.dtype == torch.float32 and x.is_contiguous()
    assert x.min() >= 0 and x.max() <= 1
    assert torch.equal(features(pixels, scale="none").div(255), x)


def test_nhwc_pixels_land_where_they_belong():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    assert features(pixels, scale="none")[1, 2, 3, 1] == pixels[1, 3, 1, 2]


def test_the_users_array_is_left_alone():
    pixels = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    values = np.ones((2, 2), np.float32)
    features(pixels)
    assert pixels.min() == 255 and features(values).dtype == torch.float32


def test_other_types():
    assert features(np.zeros((2, 3))).dtype == torch.float32
    assert features(np.zeros((2, 3), np.int32)).dtype == torch.int64
    assert features(np.zeros((2, 3), bool)).dtype == torch.float32
    assert features(np.zeros((2, 3), ">f4")).dtype == torch.float32
    assert features(np.zeros((2, 3), np.uint16)).dtype == torch.int64


def test_labels():
    assert labels(np.array([[1], [2]], np.uint8)).tolist() == [1, 2]
    assert labels(np.array([0.0, 1.0])).dtype == torch.int64
    assert labels(np.array([0.5, 1.0])).dtype == torch.float32
    assert labels(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: features(np.array([[1.0], [np.nan], [np.inf]]), "x_test"),
            NumericsError,
            "'x_test'.*2 of 3.*row 1",
        ),
        (lambda: features(np.zeros((2, 8, 6, 2), np.uint8)), DataError, r"channels; got \[2, 8, 6, 2\]"),
        (lambda: features(np.array([[1], "a"], object)), DataError, "NumPy type object"),
        (lambda: features(np.zeros(2, complex)), DataError, "complex128"),
        (lambda: features(torch.zeros(2, dtype=torch.complex64)), DataError, "complex"),
        (lambda: features(np.float32(1)), DataError, "single number"),
        (lambda: features(np.zeros((2, 2)), scale="half"), DataError, "'unit' or 'none'"),
        (lambda: labels(np.array(["cat", "dog"])), DataError, "text labels"),
        (lambda: labels(np.array([0.5, np.nan])), NumericsError, "row 1"),
        (lambda: labels(np.int64(3)), DataError, "single number"),
    ],
)
def test_what_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()
