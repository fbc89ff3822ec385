"""DP-SGD's arithmetic and settings: no row counts for more than the bound, whatever it is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cutlayer.errors import StudyError
from cutlayer.privacy import Facts, Place, defence_of
from cutlayer.privacy.dp_sgd import DPSGD, clipped_sums, mixing_layer

PLACE = Place(cut="head->server", shape=(4,), raw=("x",), labels="target", sent_labels=False, gradient=True)


def flat(parts) -> torch.Tensor:
    return torch.cat([part.flatten() for part in parts]).double()


@given(
    st.integers(1, 6),
    st.floats(0.01, 100),
    st.integers(0, 2**31),
    st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_another_row_changes_the_sum_by_at_most_twice_the_bound(rows, clip, seed, size):
    draw = torch.Generator().manual_seed(seed)
    samples = [torch.randn(rows, *shape, generator=draw) * size for shape in ((3, 2), (4,), ())]
    other = [sample.clone() for sample in samples]
    for sample in other:
        sample[0] = torch.randn(sample[0].shape, generator=draw) * size * 3
    one, two = (flat(clipped_sums(given, clip, rows, Facts())) for given in (samples, other))
    assert float((one - two).norm()) <= 2 * clip * (1 + 1e-4)
    assert float(one.norm()) <= rows * clip * (1 + 1e-4)


def test_short_gradients_stay_as_they_are_and_norms_are_told():
    samples, facts = [torch.tensor([[0.3], [3.0]]), torch.tensor([[0.4], [4.0]])], Facts()
    sums = clipped_sums([sample / 2 for sample in samples], 1.0, 2, facts)  # of the mean over two rows
    assert flat(sums).tolist() == pytest.approx([0.3 + 0.6, 0.4 + 0.8])
    assert facts.read() == {"gradient norm before clipping": pytest.approx(2.75), "rows clipped": 0.5}


def test_layers_that_mix_rows_are_known():
    assert mixing_layer(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) == "'1' (BatchNorm1d)"
    assert mixing_layer(nn.InstanceNorm1d(2, track_running_stats=True)) == "'' (InstanceNorm1d)"
    assert mixing_layer(nn.Sequential(nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm1d(2))) is None


def test_its_word_settings_and_place():
    assert defence_of("dp-sgd:clip=1,noise=2") == DPSGD(clip=1, noise=2)
    with pytest.raises(StudyError, match="dp-sgd: noise cannot be that; got -1"):
        DPSGD(clip=1.0, noise=-1)
    with pytest.raises(StudyError, match="dp-sgd: clip cannot be that; got inf"):
        DPSGD(clip=float("inf"), noise=1)
    chosen = DPSGD(clip=1.0, noise=1.0)
    assert chosen.misfit(PLACE) is None
    assert "learns nothing" in (chosen.misfit(dataclasses.replace(PLACE, gradient=False)) or "")
    assert "no rows" in (chosen.misfit(dataclasses.replace(PLACE, raw=())) or "")
    assert "It does not protect what crosses the cut" in chosen.statement()
