"""Attributes that an audit asks for: where they come from, which classes they have, and what is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.audit.attributes import AttributeInference
from cutlayer.audit.auditing import Audit, Plan, Setting
from cutlayer.audit.columns import Attributes, attribute_of
from cutlayer.audit.findings import Findings
from cutlayer.audit.labels import NormLabels
from cutlayer.audit.page import write_page
from cutlayer.audit.verdicts import verdicts
from cutlayer.data import Deal
from cutlayer.errors import StudyError


def table(rows: int = 60) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": np.arange(rows) * 3,
            "age": draw.integers(20, 90, rows).astype(float),
            "children": np.arange(rows) % 3,
            "sex": np.where(draw.random(rows) < 0.6, "female", "male"),
            "sex_at": np.where(draw.random(rows) < 0.5, "1_birth", "later"),
            "ward": np.where(np.arange(rows) % 2, "a", "b"),
            "ill": np.arange(rows) % 2,
        }
    )


def source():
    return cl.data.frame(table(), id="who", label="ill", about=["ward"]).hold_out(test=0.2, seed=1)


def told(people, attribute):
    """Return the classes by id, of all parties that have the attribute."""
    found = {}
    for party in people.parties:
        for records in party.splits.values():
            if attribute.field in records.fields:
                found |= dict(
                    zip(records.ids.tolist(), records.fields[attribute.field].tolist(), strict=True)
                )
    return found


def right(name):
    """Return the classes by id as the table has them."""
    raw = table()
    values = raw[name]
    classes = (
        (values > values.median()).astype(int)
        if name == "age"
        else values.astype(str).rank(method="dense") - 1
    )
    return dict(zip(raw["who"].tolist(), classes.astype(int).tolist(), strict=True))


@pytest.mark.parametrize("name", ["age", "children", "sex", "sex_at", "ward"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_of_pooled_rows_every_column_can_be_asked_for(name: str, by_columns: bool) -> None:
    made = source()
    people = (
        made.split({"one": ["age"], "other": ["sex", "children"]}, Deal(n=2))
        if by_columns
        else made.split_rows(2)
    )
    pool = cl.data.frame(table(), id="who", label="ill", about=["ward"]).splits["train"]
    attribute = attribute_of(people, name, ["y"], pool)
    assert told(attribute.holdings, attribute) == right(name)
    assert ("whether age is above" in attribute.words) == (name == "age")
    holders = {p.role for p in attribute.holdings.parties if attribute.field in p.splits["train"].fields}
    assert len(holders) == 1
    assert not any(attribute.field in p.splits["train"].fields for p in people.parties)


@pytest.mark.parametrize("name", ["age", "children", "sex", "sex_at"])
def test_so_can_columns_of_dealt_tables(name: str) -> None:
    attribute = attribute_of(source().split_rows(2), name, ["y"])
    assert told(attribute.holdings, attribute) == right(name)


def test_and_further_fields_at_whoever_has_them() -> None:
    x = torch.randn(40, 3)
    smokes = (torch.arange(40) % 4 == 0).float()
    records = {
        s: cl.data.Records(np.arange(40) + n, {"x": x, "smokes": smokes})
        for s, n in (("train", 0), ("test", 40))
    }
    people = cl.data.Holdings.of(
        {"clinic": records, "server": {"train": cl.data.Records(np.arange(40), {"y": x[:, 0]})}}
    )
    attribute = attribute_of(people, "smokes", ["y"])
    assert attribute.words == "smokes: 0, 1"
    assert torch.equal(
        attribute.holdings.party("clinic").splits["test"].fields[attribute.field], smokes.long()
    )
    with pytest.raises(
        StudyError, match=r"no attribute 'y' can be asked for: it is the label.*known: smokes"
    ):
        attribute_of(people, "y", ["y"])
    with pytest.raises(StudyError, match=r"no attribute 'smoke' .*did you mean 'smokes'"):
        attribute_of(people, "smoke", ["y"])
    with pytest.raises(StudyError, match="no attribute 'x'"):
        attribute_of(people, "x", ["y"])


def test_gaps_are_a_class_of_words_and_below_the_median_of_numbers() -> None:
    sizes = [None, *(0.5 + number for number in range(11))]
    raw = pd.DataFrame({"size": sizes, "kind": ["a", None, *"bbbbbbbbba"], "one": 1})
    labels = np.arange(12) % 2
    pool = cl.data.frame(raw.assign(y=labels), label="y").splits["train"]
    people = cl.data.arrays(np.zeros((12, 2), "float32"), labels).split_rows(1)
    size = attribute_of(people, "size", ["y"], pool)
    assert size.words == "whether size is above 5.5, its median"
    assert told(size.holdings, size) == {row: int(row > 6) for row in range(12)}
    kind = attribute_of(people, "kind", ["y"], pool)
    assert kind.words == "kind: (missing), a, b"
    assert told(kind.holdings, kind) == {0: 1, 1: 0, 11: 1} | dict.fromkeys(range(2, 11), 2)
    with pytest.raises(StudyError, match=r"'one' is no attribute to find out; got 1 different values"):
        attribute_of(people, "one", ["y"], pool)
    many = pd.DataFrame({"note": [f"text {number}" for number in range(60)], "y": 0})
    with pytest.raises(StudyError, match=r"got 60 different values; expected numbers, or 2 to 50"):
        rows = cl.data.arrays(np.zeros((60, 2), "float32"), np.zeros(60, int)).split_rows(1)
        attribute_of(rows, "note", ["y"], cl.data.frame(many, label="y").splits["train"])


def test_several_at_once_and_how_to_name_one() -> None:
    people = source().split_rows(2)
    attacks = [
        NormLabels(),
        AttributeInference(),
        AttributeInference(of="sex"),
        AttributeInference(of="age", rows=5),
    ]
    found = Attributes(people, attacks, ["y"])
    assert {"attribute sex", "attribute age"} < set(found.holdings.fields("client"))
    assert found.after(attacks[0]) == ""
    assert [found.after(attack).name for attack in attacks[2:]] == ["sex", "age"]
    said = found.after(attacks[1])
    assert "`cutlayer audit --attribute NAME`" in said and "'age', 'children', 'sex', 'sex_at'" in said
    bare = cl.data.digits().split_rows(2)
    assert "no column or further field to name" in Attributes(bare, [AttributeInference()], ["y"]).after(
        attacks[1]
    )


def test_in_an_audit_one_is_found_out_and_none_of_the_rows_was_told(tmp_path) -> None:
    people = cl.data.breast_cancer().split_rows(1)
    torch.manual_seed(0)
    graph = cl.vanilla(cl.networks.mlp((30, 16, 2)), "activation1", clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), batch_size=32, epochs=3)

    class Strict(AttributeInference):
        def guess(self, seen, known, seed, on_progress=None):
            rows = {tuple(row) for row in seen.rows("activation", training=True).tolist()}
            assert not rows & {tuple(row) for row in known.leaked_z.tolist()}
            assert len(known.leaked_attribute) == len(known.leaked_z) >= 100
            assert len(known.public_attribute) == len(known.public_x)
            return super().guess(seen, known, seed, on_progress)

    def build(seed):
        return dataclasses.replace(study, seed=seed), people

    attacks = [Strict(of="mean radius", steps=100), AttributeInference(of="worst texture", steps=100)]
    findings = Findings(tmp_path, {"study": study.digest})
    Audit(Plan(settings=[Setting(name="plain", build=build)], attacks=attacks, rows=64), findings).run()
    found = {one.name: one for one in verdicts(findings.found)}
    radius = found["attribute mean radius"]
    assert radius.score > 0.8 > 0.65 > radius.blind
    assert radius.others["leak_auc"][0] > 0.85
    assert radius.notes[0].startswith("whether mean radius is above -0.225")
    assert found["attribute worst texture"].score < radius.score
    Audit(
        Plan(settings=[Setting(name="plain", build=build)], attacks=[AttributeInference()], rows=64), findings
    ).run()
    page = write_page(findings, "cells", {}).read_text()
    assert "could find out a private attribute" in page
    assert "no attribute was named" not in page


def test_without_a_name_the_page_says_how_to_give_one(tmp_path) -> None:
    people = cl.data.breast_cancer().split_rows(1)
    graph = cl.vanilla(nn.Sequential(nn.Linear(30, 4), nn.ReLU(), nn.Linear(4, 2)), "1", clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), batch_size=64, epochs=1)
    findings = Findings(tmp_path, {"study": study.digest})
    setting = Setting(name="plain", build=lambda seed: (dataclasses.replace(study, seed=seed), people))
    Audit(Plan(settings=[setting], attacks=[AttributeInference()], rows=64), findings).run()
    page = write_page(findings, "cells", {}).read_text()
    assert "no attribute was named: say `cutlayer audit --attribute NAME`" in page and "mean radius" in page
