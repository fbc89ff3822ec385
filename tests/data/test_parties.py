import numpy as np
import pytest
import torch

from cutlayer.data import arrays, dataset
from cutlayer.errors import DataError


def images(standardize=True):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (60, 2, 4, 4)).astype(np.float32)
    x[:, 1] *= 10
    return arrays(x, np.arange(60) % 2, x[:20] + 1, np.arange(20) % 2, standardize=standardize)


def test_each_party_scales_by_its_own_training_rows():
    raw, scaled = images(False).split_rows(3), images().split_rows(3)
    for name in raw.roles["client"]:
        train, x = raw.party(name).splits["train"].fields["x"], scaled.party(name).splits["train"].fields["x"]
        assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
        assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5)
        test = raw.party(name).splits["test"].fields["x"]
        mean, scale = train.mean((0, 2, 3)), train.std((0, 2, 3), correction=0)
        expected = (test - mean[:, None, None]) / scale[:, None, None]
        assert torch.allclose(scaled.party(name).splits["test"].fields["x"], expected, atol=1e-5)


def test_the_source_stays_as_it_was_and_labels_too():
    source = images()
    before = source.splits["train"].fields["x"].clone()
    held = source.split_rows(2)
    assert torch.equal(source.splits["train"].fields["x"], before)
    assert held.parties[0].splits["train"].fields["y"].dtype == torch.int64


def test_columns_are_scaled_one_by_one_and_constants_become_zero():
    x = np.stack([np.arange(10.0), np.full(10, 7.0)], 1)
    held = arrays(x, np.arange(10) % 2, standardize=True).split_columns({"a": [0], "b": [1]})
    assert held.party("a").splits["train"].fields["x"].std(correction=0) == pytest.approx(1)
    assert held.party("b").splits["train"].fields["x"].abs().max() == 0


def test_lazy_fields_cannot_be_scaled():
    from dataclasses import replace

    with pytest.raises(DataError, match="scale in the dataset's transform"):
        replace(dataset([(torch.zeros(1), 0)]), standardize=True)
