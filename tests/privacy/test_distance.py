"""Distance correlation against a plain loop, linear CKA and what is known of independent rows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import DataError, StudyError
from cutlayer.privacy.distance import (
    DISTANCES,
    centred_distances,
    corrected_distance_correlation,
    corrected_of_centred,
    correlation_of,
    correlation_of_centred,
    correlation_with,
    distance_correlation,
    distances,
    permuted,
)


def between(rows, power):
    rows = rows.double().reshape(len(rows), -1)
    return [[float((a - b).square().sum()) ** (power / 2) for b in rows] for a in rows]


def centred(table):
    n = len(table)
    means = [sum(row) / n for row in table]
    whole = sum(means) / n
    return [[table[i][j] - means[i] - means[j] + whole for j in range(n)] for i in range(n)]


def u_centred(table):
    n = len(table)
    sums = [sum(row) for row in table]
    whole = sum(sums) / ((n - 1) * (n - 2))
    return [
        [0.0 if i == j else table[i][j] - (sums[i] + sums[j]) / (n - 2) + whole for j in range(n)]
        for i in range(n)
    ]


def cosine(a, b):
    def inner(p, q):
        return sum(v * w for one, two in zip(p, q, strict=True) for v, w in zip(one, two, strict=True))

    return inner(a, b) / math.sqrt(inner(a, a) * inner(b, b))


def rows_of(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(4, 9), wide=st.integers(1, 5), seed=st.integers(0, 1000), power=st.sampled_from([1, 2]))
def test_it_is_what_a_plain_loop_finds(n, wide, seed, power):
    x, noise = rows_of(n, 2, wide, seed=seed), rows_of(n, 3, seed=seed + 1)
    z = x[:, 0, :1] ** 2 + 0.3 * noise
    name = {1: "euclidean", 2: "squared"}[power]
    a, b = between(x, power), between(z, power)
    by_hand = cosine(centred(a), centred(b))
    assert float(distance_correlation(x, z, name)) == pytest.approx(math.sqrt(by_hand), rel=1e-6)
    by_hand = cosine(u_centred(a), u_centred(b))
    found = float(corrected_distance_correlation(x, z, name))
    assert found == pytest.approx(math.copysign(math.sqrt(abs(by_hand)), by_hand), rel=1e-5, abs=2e-4)


def test_with_squared_distances_its_square_is_linear_cka():
    x, z = rows_of(40, 3, 5), rows_of(40, 7, seed=1)
    z[:, 0] += 2 * x[:, 0, 0]
    p, q = (rows.reshape(40, -1) - rows.reshape(40, -1).mean(0) for rows in (x, z))
    cka = (p.T @ q).square().sum() / ((p.T @ p).norm() * (q.T @ q).norm())
    assert float(distance_correlation(x, z, "squared") ** 2) == pytest.approx(float(cka), rel=1e-9)


def test_wide_independent_rows_look_dependent_unless_corrected():
    seen = {}
    for seed in range(8):
        x, z = rows_of(64, 784, seed=seed).float(), rows_of(64, 500, seed=seed + 100).float()
        seen.setdefault("biased", []).append(float(distance_correlation(x, z)))
        seen.setdefault("corrected", []).append(float(corrected_distance_correlation(x, z)))
    assert sum(seen["biased"]) / 8 == pytest.approx(0.987, abs=0.002)
    assert abs(sum(seen["corrected"]) / 8) < 0.15
    assert float(corrected_distance_correlation(x, x @ rows_of(784, 500).float())) > 0.7


def test_only_euclidean_distances_see_what_is_not_linear():
    x = rows_of(400, 1)
    assert float(distance_correlation(x, x**2, "squared")) < 0.3
    assert float(distance_correlation(x, x**2)) > 0.45
    assert float(corrected_distance_correlation(x, x**2)) > 0.45


def test_permuted_pairs_show_the_bias_and_no_dependence():
    x = rows_of(200, 3)
    a, order = distances(x), torch.randperm(200, generator=torch.Generator().manual_seed(3))
    assert float(correlation_of(a, a)) == pytest.approx(1.0)
    assert float(correlation_of(a, permuted(a, order))) == pytest.approx(
        float(distance_correlation(x, x[order]))
    )
    assert float(correlation_of(a, permuted(a, order))) < 0.3


@settings(deadline=None, max_examples=25)
@given(n=st.integers(4, 9), seed=st.integers(0, 1000), name=st.sampled_from(DISTANCES))
def test_of_centred_tables_it_takes_inner_products_alone(n, seed, name):
    x = rows_of(n, 3, seed=seed)
    z = x[:, :2] ** 2 + rows_of(n, 2, seed=seed + 1)
    a, b = centred_distances(x, name), centred_distances(z, name)
    assert correlation_of_centred(a, b) == pytest.approx(float(distance_correlation(x, z, name)))
    slow = float(corrected_distance_correlation(x, z, name))
    assert corrected_of_centred(a, b) == pytest.approx(slow, abs=2e-4)
    assert correlation_of_centred(a, torch.zeros_like(b)) == 0.0


@pytest.mark.parametrize("name", DISTANCES)
def test_the_quick_gradient_is_that_of_the_definition(name):
    x, z = rows_of(12, 1, 6, 6), rows_of(12, 2, 3, seed=1).requires_grad_()
    (slow,) = torch.autograd.grad(3 * distance_correlation(x, z, name), z)
    quick_value = correlation_with(centred_distances(x, name), z, name)
    (quick,) = torch.autograd.grad(3 * quick_value, z)
    torch.testing.assert_close(quick, slow)
    assert float(quick_value.detach()) == pytest.approx(float(distance_correlation(x, z.detach(), name)))
    assert torch.autograd.gradcheck(lambda rows: distance_correlation(x, rows, name), z)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("spoilt", ["equal rows", "all rows equal", "far from 0"])
def test_gradients_are_finite_where_distances_vanish(name, spoilt):
    x, z = rows_of(10, 4).float(), rows_of(10, 5, seed=1).float()
    if spoilt == "equal rows":
        x[3], z[3] = x[4], z[4]
    elif spoilt == "all rows equal":
        z[:] = z[0].clone()
    else:
        z = z + 1e4
    z.requires_grad_()
    slow = distance_correlation(x, z, name)
    quick = correlation_with(centred_distances(x, name), z, name)
    for value in (slow, quick):
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(gradient).all()
    assert float(quick.detach()) == pytest.approx(float(slow.detach()), abs=1e-5)
    if spoilt == "all rows equal":
        assert float(slow.detach()) == 0.0
    if spoilt == "far from 0":
        near = distance_correlation(x.double(), z.detach().double(), name)
        assert float(slow.detach()) == pytest.approx(float(near), abs=1e-4)


def test_equal_rows_far_away_are_at_distance_0_and_halves_are_computed_in_float32():
    rows = rows_of(6, 300).float() + 100
    rows[1] = rows[0]
    assert float(distances(rows)[0, 1]) == 0.0
    half = rows_of(6, 300).bfloat16()
    assert distances(half).dtype == torch.float32
    assert float(distance_correlation(half, half)) == pytest.approx(1.0, abs=1e-5)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(DataError, match="5 and 4 rows"):
        distance_correlation(rows_of(5, 2), rows_of(4, 2))
    with pytest.raises(DataError, match="at least 4"):
        corrected_distance_correlation(rows_of(3, 2), rows_of(3, 2))
    with pytest.raises(StudyError, match=r"no distance is named 'euclid'.*euclidean"):
        distance_correlation(rows_of(5, 2), rows_of(5, 2), "euclid")
