"""The papers' figures come out of networks of this package, digit by digit."""

from __future__ import annotations

import pytest

from cutlayer.errors import StudyError
from cutlayer.planner.drawing import save_break_even
from cutlayer.planner.papers import health_tables, singh
from cutlayer.planner.singh import Case


@pytest.fixture(scope="module")
def health():
    return health_tables()


def test_client_computing_is_that_of_the_first_table(health):
    figures = health.figures
    assert (
        figures["vgg16 multiply-adds"] == 336_166_912
        and figures["conv1_1 multiply-adds"] == 3 * 64 * 9 * 32 * 32
    )
    assert f"{figures['whole network, 100 clients']:.2f}" == "29.44"
    assert f"{figures['whole network, 500 clients']:.3f}" == "5.888"
    assert f"{figures['split, 100 clients']:.5f}" == "0.15483"
    assert f"{figures['split, 500 clients']:.5f}" == "0.03097"
    printed = {(row[0], row[1]): row[2:4] for row in health.tables[0].rows}
    assert printed["split learning", 100] == ("0.1548", "0.15483")
    assert printed["federated averaging", 500] == ("5.89", "5.888")


def test_client_traffic_is_that_of_the_second_table(health):
    figures = health.figures
    assert figures["conv1 outputs"] == 16_384 and figures["resnet50 parameters"] == 23_712_932
    assert f"{figures['split GiB, 100 clients']:.2f}" == "6.10"
    assert f"{figures['split GiB, 500 clients']:.2f}" == "1.22"
    for clients in (100, 500):  # frames, labels and hand-overs come on top, and are little
        assert (
            1.0 < figures[f"framed GiB, {clients} clients"] / figures[f"split GiB, {clients} clients"] < 1.02
        )


def test_what_was_fitted_is_called_so(health):
    said = "\n".join(health.lines)
    assert (
        "calibrated: 175 epochs" in said and "calibrated: 100 epochs of split learning, 71 exchanges" in said
    )
    worked = {(row[0], row[1]): row[3] for row in health.tables[1].rows}
    assert worked["federated averaging", 500] == "2.4 GB (calibrated)"
    assert worked["large-batch SGD", 100] == "13.5 GB (calibrated)"


def test_the_honest_count_is_forward_and_backward_and_both_sides_of_a_multiply_add(health):
    rows = {(row[0], row[1]): row[4] for row in health.tables[0].rows}
    # The first layer needs no gradient of the pixels: two passes there, three in the others.
    assert float(rows["split learning", 100]) == pytest.approx(2 * 2 * 0.1548288, rel=1e-3)
    assert float(rows["large-batch SGD", 100]) == pytest.approx(2 * (3 * 29.4146048 - 0.1548288), rel=1e-3)


def test_bars_and_break_even_are_those_of_the_formulas():
    found = singh().figures
    assert [value for name, value in found.items() if "break" not in name] == [
        2.02e8, 2.2e9, 4e8, 2.02e10, 5e9, 2.1e10,
    ]  # fmt: skip
    case = Case(clients=100, weights=23_712_932, rows=50_000, width=16_384, share=9_408 / 23_712_932)
    assert found["ResNet-50 break-even clients"] == pytest.approx(case.break_even)
    even = Case(
        clients=case.break_even, weights=case.weights, rows=case.rows, width=case.width, share=case.share
    )
    assert even.split == pytest.approx(even.federated) and even.split_alone < even.split


def test_the_break_even_curve_is_drawn(tmp_path):
    assert [file.stat().st_size > 1000 for file in save_break_even(tmp_path)] == [True, True]


def test_cases_that_cannot_be_are_refused():
    with pytest.raises(StudyError, match="above 0"):
        Case(clients=0, weights=1, rows=1, width=1, share=0.1)
