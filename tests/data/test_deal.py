import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.data.deal import Deal, deal_rows, pick_rows
from cutlayer.data.pool import Pool
from cutlayer.errors import DataError
from cutlayer.seeds import generator


def splits(train=60, test=7, classes=3, sites=("b", "a", "c")):
    def pool(start, rows):
        return Pool(
            ids=np.arange(start, start + rows),
            fields={"y": torch.arange(rows) % classes},
            about={"site": np.array([sites[i % len(sites)] for i in range(rows)])},
        )

    return {"train": pool(0, train), "test": pool(1000, test)}


ways = st.sampled_from(["even", "dirichlet"])


@settings(max_examples=60, deadline=None)
@given(ways, st.integers(1, 40), st.integers(40, 90), st.floats(0.01, 10), st.integers(0, 5))
def test_every_row_goes_to_exactly_one_party_in_the_sources_order(by, n, rows, alpha, seed):
    pools = splits(rows)
    how = Deal(n=n, by=by, alpha=alpha, seed=seed)
    hands = deal_rows(pools, how)
    assert [hand.name for hand in hands] == [str(i) for i in range(n)]
    assert all(len(hand.rows["train"]) >= 1 for hand in hands)
    for split, pool in pools.items():
        dealt = [hand.rows[split] for hand in hands if split in hand.rows]
        assert sorted(np.concatenate(dealt).tolist()) == list(range(len(pool)))
        assert all((np.diff(rows) > 0).all() for rows in dealt)
    again = deal_rows(pools, how)
    assert all(np.array_equal(a.rows["train"], b.rows["train"]) for a, b in zip(hands, again, strict=True))


def test_even_means_even_and_seeds_differ():
    sizes = [len(hand.rows["train"]) for hand in deal_rows(splits(), Deal(n=7))]
    assert max(sizes) - min(sizes) <= 1
    one, two = (deal_rows(splits(), Deal(n=2, seed=seed))[0].rows["train"] for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_small_alpha_skews_labels_and_large_alpha_does_not():
    def most_common_share(alpha):
        pools = splits(train=6000, classes=10)
        labels = pools["train"].labels()
        hands = deal_rows(pools, Deal(n=5, by="dirichlet", alpha=alpha))
        counts = [np.bincount(labels[hand.rows["train"]], minlength=10) for hand in hands]
        return np.mean([count.max() / count.sum() for count in counts])

    assert most_common_share(0.1) > 0.3
    assert most_common_share(1000.0) < 0.13


def test_column_gives_a_party_per_value_with_its_own_test_rows():
    pools = splits()
    hands = deal_rows(pools, Deal(by="site"))
    assert [hand.name for hand in hands] == ["a", "b", "c"]
    for hand in hands:
        for split, rows in hand.rows.items():
            assert set(pools[split].column("site")[rows]) == {hand.name}


def test_names_from_values_are_fit_for_files():
    hands = deal_rows(splits(sites=("St. Mary/West", "Köln")), Deal(by="site"))
    assert [hand.name for hand in hands] == ["Köln", "St.-Mary-West"]


def test_test_rows_first_or_even():
    first = deal_rows(splits(), Deal(n=3, test="first"))
    assert [len(hand.rows.get("test", ())) for hand in first] == [7, 0, 0]
    even = deal_rows(splits(), Deal(by="site", test="even"))
    assert sorted(len(hand.rows["test"]) for hand in even) == [2, 2, 3]


def test_a_site_that_only_test_rows_have():
    pools = splits()
    pools["test"] = splits(sites=("z",))["test"]
    with pytest.raises(DataError, match="values in 'test' that training rows lack; got 'z'"):
        deal_rows(pools, Deal(by="site"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: deal_rows(splits(), Deal(n=61)), "61 parties, 60 rows"),
        (lambda: deal_rows(splits(), Deal(by="sight")), "did you mean 'site'"),
        (lambda: Deal(n=3, by="site"), "leave n out"),
        (lambda: Deal(), "needs a number of parties"),
        (lambda: Deal(n=0), "n >= 1"),
        (lambda: Deal(n=1, alpha=0), "alpha must be positive"),
        (lambda: Deal(n=1, test="all"), "unknown value test='all'"),
        (lambda: Deal(n=1, test="own"), "needs a column"),
        (
            lambda: deal_rows(
                {"train": Pool(ids=np.arange(2), fields={"y": torch.rand(2)})}, Deal(n=1, by="dirichlet")
            ),
            "not one whole number per row",
        ),
    ],
)
def test_deals_that_are_refused(make, says):
    with pytest.raises(DataError, match=says):
        make()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=200), st.floats(0.05, 0.9), st.integers(0, 9))
def test_groups_stay_together_and_every_stratum_keeps_rows(groups, share, seed):
    groups = np.array(groups)
    strata = groups % 3
    chosen = pick_rows(strata, groups, share, generator(seed, "test"))
    for group in np.unique(groups):
        assert len(set(chosen[groups == group].tolist())) == 1
    for stratum in np.unique(strata):
        assert not chosen[strata == stratum].all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.floats(0.05, 0.5))
def test_single_rows_are_chosen_in_the_right_number_of_every_stratum(sizes, share):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    chosen = pick_rows(strata, np.arange(len(strata)), share, generator(0, "test"))
    assert abs(chosen.sum() - share * len(strata)) <= 1.5
    for stratum, size in enumerate(sizes):
        assert abs(chosen[strata == stratum].sum() - share * size) <= 1.5
