import numpy as np
import pandas as pd
import pytest
import torch

from cutlayer.data import Deal, Preparation, arrays, breast_cancer, common_ids, dataset, digits, frame
from cutlayer.errors import DataError


def hospital(rows=120):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "patient": [f"p{i:03}" for i in range(rows)],
            "age": rng.normal(50, 10, rows),
            "sex": rng.choice(["f", "m"], rows),
            "blood_na": rng.normal(140, 3, rows),
            "blood_k": rng.normal(4, 1, rows),
            "site": rng.choice(["north", "south", "west"], rows),
            "family": [f"f{i // 3}" for i in range(rows)],
            "ill": rng.choice(["no", "yes"], rows, p=[0.7, 0.3]),
        }
    )
    return frame(table, id="patient", label="ill", about=["family"])


COLUMNS = {"clinic": ["age", "sex"], "lab": ["blood_*"]}


def by_id(records, name="x"):
    return {i: records.fields[name][row] for row, i in enumerate(records.ids.tolist())}


def test_hold_out_takes_the_same_share_of_every_class():
    source = digits(test=0).hold_out(test=0.2, valid=0.1)
    sizes = {split: len(pool) for split, pool in source.splits.items()}
    assert sizes == {"train": 1258, "test": 359, "valid": 180}
    whole = np.bincount(digits(test=0).splits["train"].labels())
    held = np.bincount(source.splits["test"].labels())
    assert np.abs(held - 0.2 * whole).max() <= 1
    everyone = np.concatenate([pool.ids for pool in source.splits.values()])
    assert sorted(everyone.tolist()) == list(range(1797))
    assert all((np.diff(pool.ids) > 0).all() for pool in source.splits.values())


def test_hold_out_by_group_keeps_families_together():
    source = hospital().hold_out(test=0.25, by="family")
    train, test = (set(source.splits[split].about["family"]) for split in ("train", "test"))
    assert not train & test
    assert 20 <= len(source.splits["test"]) <= 40


def test_hold_out_by_a_raw_column_sets_it_aside():
    source = hospital().hold_out(test=0.3, by="site", stratify=False)
    assert "site" not in source.splits["train"].columns


def test_hold_out_depends_on_the_seed_only():
    one, same, other = (digits(test=0).hold_out(seed=seed).splits["test"].ids for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: digits().hold_out(), "a test split already; say test=0"),
        (lambda: hospital().hold_out(test=0.7, valid=0.4), "leave training rows"),
        (lambda: hospital().hold_out(test=-0.1), "leave training rows"),
        (lambda: hospital().hold_out(test=0.001), "too few rows or groups"),
        (lambda: hospital().hold_out(by="famly"), "did you mean 'family'"),
        (lambda: hospital().split_rows(3, by="site"), "leave n out"),
        (lambda: hospital().split_rows(200), "200 parties, 120 rows"),
        (lambda: hospital().split_columns({}), "no party has columns"),
        (lambda: hospital().split_columns({"clinic": ["aeg"]}), "clinic: there is no column 'aeg'"),
        (lambda: arrays(np.zeros((4, 2))).split_columns({"a": [0]}), "server: there are no labels"),
        (lambda: arrays(np.zeros((4, 2))).split_rows(2, by="dirichlet"), "no field 'y'"),
        (
            lambda: arrays(np.zeros((2, 2)), np.array([0, 1]), np.zeros((2, 2)), np.array([0, 7])),
            "'test' has classes that no training row has; got 7",
        ),
        (
            lambda: arrays(np.zeros((2, 2)), None, np.zeros((2, 3))),
            r"got x float32\[3\]; expected x float32\[2\]",
        ),
        (lambda: dataset([(torch.zeros(1), 0)]).hold_out(), "too few rows"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(DataError, match=says):
        make()


def test_split_rows_keeps_rows_whole_and_in_order():
    source = digits()
    held = source.split_rows(5, seed=3)
    assert held.roles == {"client": tuple(f"client-{i}" for i in range(5))}
    pool = source.splits["train"]
    for party in held.parties:
        records = party.splits["train"]
        assert (np.diff(records.ids) > 0).all()
        rows = np.searchsorted(pool.ids, records.ids)
        assert torch.equal(records.fields["x"], pool.fields["x"][rows])
        assert torch.equal(records.fields["y"], pool.fields["y"][rows])
    assert sum(len(party.splits["test"]) for party in held.parties) == 359


def test_split_rows_by_column_prepares_once_for_all():
    source = hospital().hold_out()
    held = source.split_rows(by="site", role="hospital")
    assert held.roles == {"hospital": ("north", "south", "west")}
    fitted = {id(party.preparation) for party in held.parties}
    assert len(fitted) == 1
    assert "site" not in held.parties[0].preparation.columns
    train = source.splits["train"].table.drop(columns="site")
    whole = Preparation.fit(train).transform(train)
    rows = source.splits["train"].column("site") == "south"
    assert torch.equal(held.party("south").splits["train"].fields["x"], whole[rows])


def test_test_rows_do_not_touch_the_preparation():
    def trained(shift):
        table = pd.DataFrame({"a": np.arange(10.0), "y": np.arange(10) % 2})
        source = frame(table, label="y").hold_out(test=0.3)
        source.splits["test"].table["a"] += shift
        return source.split_columns({"clinic": ["a"]}).party("clinic")

    near, far = trained(0.0), trained(1e6)
    assert torch.equal(by_id(near.splits["train"])[5], by_id(far.splits["train"])[5])
    assert near.preparation.describe() == far.preparation.describe()
    assert far.splits["test"].fields["x"].min() > 1e4


def test_split_columns_needs_alignment_and_alignment_restores_the_rows():
    source = hospital().hold_out()
    held = source.split_columns(COLUMNS)
    assert held.roles == {"clinic": ("clinic",), "lab": ("lab",), "server": ("server",)}
    ids = {party.name: party.splits["train"].ids for party in held.parties}
    assert not np.array_equal(ids["clinic"], ids["lab"])
    assert not np.array_equal(ids["clinic"], ids["server"])
    common = common_ids(ids, strict=True)
    clinic = held.party("clinic").splits["train"]
    aligned = clinic.batch(clinic.rows_of(common))["x"]
    train = source.splits["train"]
    alone = Preparation.fit(train.table[["age", "sex"]]).transform(train.table[["age", "sex"]])
    assert train.ids.tolist() == common.tolist()
    assert torch.equal(aligned, alone)
    server = held.party("server").splits["train"]
    assert torch.equal(server.batch(server.rows_of(common))["y"], train.fields["y"])
    assert set(clinic.fields) == {"x"} and set(server.fields) == {"y"}
    assert source.classes == ("no", "yes")


def test_labels_at_a_feature_party_or_nowhere():
    held = hospital().split_columns(COLUMNS, labels="lab")
    assert set(held.roles) == {"clinic", "lab"}
    assert set(held.fields("lab")) == {"x", "y"} and set(held.fields("clinic")) == {"x"}
    assert set(hospital().split_columns(COLUMNS, labels=None).roles) == {"clinic", "lab"}


def test_positions_of_arrays():
    source = digits()
    held = source.split_columns({"upper": slice(0, 32), "lower": range(32, 64)})
    one = source.splits["test"].ids[7]
    x = source.splits["test"].fields["x"][7]
    assert torch.equal(by_id(held.party("upper").splits["test"])[one], x[:32])
    assert torch.equal(by_id(held.party("lower").splits["test"])[one], x[32:])


def test_modalities_and_mixtures():
    table = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "sex": list("fmfm"), "y": [0, 1, 0, 1]})
    source = frame(table, label="y", fields={"image": np.zeros((4, 8, 8, 3), np.uint8)})
    held = source.split_columns({"radiology": ["image"], "record": ["age", "sex"]})
    assert held.fields("radiology")["x"].shape == (3, 8, 8)
    assert held.fields("record")["x"].shape == (3,)
    mixed = source.split_columns({"clinic": ["image", "age"]})
    assert {name: spec.shape for name, spec in mixed.fields("clinic").items()} == {
        "image": (3, 8, 8),
        "x": (1,),
    }
    assert set(source.split_rows(2).fields("client")) == {"image", "x", "y"}


@pytest.mark.parametrize("labels_split", [False, True])
def test_columns_and_rows(labels_split):
    held = hospital().hold_out().split(COLUMNS, rows=Deal(n=3), labels_split=labels_split)
    assert held.roles["clinic"] == ("clinic-0", "clinic-1", "clinic-2")
    servers = ("server-0", "server-1", "server-2") if labels_split else ("server",)
    assert held.roles["server"] == servers
    groups: dict[int, list[set[str]]] = {}
    for party in held.parties:
        if party.role != "server" or labels_split:
            groups.setdefault(party.group, []).append(set(party.splits["train"].ids))
    assert sorted(groups) == [0, 1, 2]
    assert all(ids == same[0] for same in groups.values() for ids in same)
    assert len(set.union(*(same[0] for same in groups.values()))) == 96
    assert not np.array_equal(
        held.party("clinic-1").splits["train"].ids, held.party("lab-1").splits["train"].ids
    )


def test_columns_and_rows_by_site():
    held = hospital().split(COLUMNS, rows=Deal(by="site"), labels="clinic")
    assert held.roles["lab"] == ("lab-north", "lab-south", "lab-west")
    assert set(held.fields("clinic")) == {"x", "y"}


def test_lazy_data_can_be_dealt():
    items = [(torch.full((2,), float(i)), i % 4) for i in range(80)]
    held = dataset(items, items[:8]).split_rows(4, by="dirichlet", alpha=0.3)
    party = max(held.parties, key=lambda party: len(party.splits["train"]))
    batch = party.splits["train"].batch(torch.tensor([1, 0]))
    expected = party.splits["train"].ids[[1, 0]]
    assert batch["x"][:, 0].tolist() == expected.tolist()
    assert batch["y"].tolist() == (expected % 4).tolist()
    assert "client-0" in held.table()


def test_real_columns_classify_after_alignment():
    from sklearn.linear_model import LogisticRegression

    halves = {"a": slice(0, 15), "b": slice(15, 30)}
    held = breast_cancer().split_columns(halves)
    x, y = {}, {}
    for split in ("train", "test"):
        common = common_ids({party.name: party.splits[split].ids for party in held.parties})
        batch = [p.splits[split].batch(p.splits[split].rows_of(common)) for p in held.parties]
        x[split], y[split] = torch.cat([batch[0]["x"], batch[1]["x"]], 1), batch[2]["y"]
    model = LogisticRegression().fit(x["train"].numpy(), y["train"].numpy())
    assert model.score(x["test"].numpy(), y["test"].numpy()) > 0.95


def test_repr_is_short():
    assert repr(hospital().hold_out()) == "Source(train: 96, test: 24 rows; y int64[], 5 raw columns)"
