"""Fields read from a dataset while training: augmentation follows the study's seed, bad items are named."""

import random

import numpy as np
import pytest
import torch
from small_studies import study_of
from torch import nn
from torch.utils.data import Dataset

import cutlayer as cl
from cutlayer.errors import DataError, NumericsError


class Augmented(Dataset):
    """Rows to which noise is added from each of the three global random states."""

    def __init__(self, rows=20, spoil=None):
        draw = np.random.default_rng(0)
        self.x, self.y = draw.normal(size=(rows, 6)).astype(np.float32), np.arange(rows) % 3
        self.spoil = spoil

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        if self.spoil == ("raise", i):
            raise OSError("truncated file")
        noise = 0.1 * torch.randn(6) + random.random() + float(np.random.rand())
        x = torch.from_numpy(self.x[i]) + noise
        if self.spoil == ("nan", i):
            x[2] = float("nan")
        return x, int(self.y[i])


def people_and_study(spoil=None, **settings):
    people = cl.data.dataset(Augmented(spoil=spoil), Augmented(6)).split_rows(
        **({"n": 2} | settings.pop("deal", {}))
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    graph = cl.vanilla(model, cut="1", clients=people)
    return people, study_of(graph, **settings)


def bits(run):
    return {(s, n): t.clone() for s, state in run.weights().items() for n, t in state.items()}


def test_augmentation_follows_the_seed_and_equals_the_twin():
    people, study = people_and_study()
    torch.manual_seed(1)
    first = study.simulate(people)
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    second = study.simulate(people)
    assert all(torch.equal(t, bits(second)[key]) for key, t in bits(first).items())
    assert second.equals(study.central(people))
    other = people_and_study(seed=8)[1].simulate(people)
    assert not all(torch.equal(t, bits(other)[key]) for key, t in bits(first).items())


def test_one_seed_gives_one_draw_and_every_row_has_its_own():
    people, _ = people_and_study(deal={"n": 1})
    records = people.parties[0].splits["train"]
    rows = torch.tensor([4, 4])
    once, again, other = (records.read(rows, seed)["x"] for seed in (3, 3, 4))
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert not torch.equal(once[0], once[1])


def test_the_callers_random_states_are_untouched():
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    people, study = people_and_study(deal={"n": 2, "by": "dirichlet"})
    study.simulate(people)
    study.central(people)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_nan_from_a_dataset_is_blamed_on_the_item_and_its_party():
    people, study = people_and_study(spoil=("nan", 13))
    holder = next(p.name for p in people.parties if 13 in p.splits["train"].ids)
    with pytest.raises(NumericsError, match=r"batch train\..*field 'x'.*1 of 5 rows.*id 13") as caught:
        study.simulate(people)
    assert caught.value.party == holder


def test_an_item_that_cannot_be_read_is_named_with_its_cause():
    people, study = people_and_study(spoil=("raise", 13))
    holder = next(p.name for p in people.parties if 13 in p.splits["train"].ids)
    with pytest.raises(DataError, match=r"item 13 .*OSError: truncated file; mend") as caught:
        study.simulate(people)
    assert caught.value.party == holder
    assert isinstance(caught.value.__cause__, OSError)
