"""A study file says the same as a Python program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import DataError
from cutlayer.metering.metrics import METRICS
from cutlayer.seeds import stream
from cutlayer.study_file import load_study
from cutlayer.study_file.tables import Tables
from cutlayer.study_file.words import LOSSES, Metric

Write = Callable[..., Path]
EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "digits" / "study.toml"


def same_bits(run: cl.Run, other: cl.Run) -> bool:
    mine, theirs = run.weights(), other.weights()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(t, theirs[s][n]) for s, state in mine.items() for n, t in state.items())


def agreed(study: cl.Study) -> dict[str, str]:
    """What the parties agree on, apart from the text of the model's file, which a program need not have."""
    return {name: part for name, part in study.parts.items() if name != "model code"}


# The same as in Python


def test_example_gives_the_bits_of_the_python_program() -> None:
    study, holdings = load_study(EXAMPLE).build()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(0, "model"))
        model = nn.Sequential(
            nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)
        )
    named = nn.Sequential()
    for name, module in zip(
        ["linear1", "relu1", "dropout", "linear2", "relu2", "linear3"], model, strict=True
    ):
        named.add_module(name, module)
    people = cl.data.digits(test=0).hold_out(test=0.2, valid=0.1).split_rows(3, by="dirichlet", alpha=1.0)
    program = cl.Study(
        graph=cl.u_shaped(named, ("relu1", "relu2"), clients=people),
        schedule=cl.RoundRobin(turn=4),
        optimizer=cl.optim.SGD(lr=0.1, momentum=0.9, schedule=cl.optim.StepLR(step_size=2, gamma=0.5)),
        batch_size=32,
        epochs=5,
        name="digits",
    )

    assert agreed(study) == agreed(program)
    assert set(study.code) == {"model.py"}
    run = study.simulate(holdings)
    assert same_bits(run, program.simulate(people))
    assert run.metrics("test")["accuracy"] > 0.9


def test_vertical_file_gives_the_bits_of_the_python_program(write: Write) -> None:
    study, holdings = load_study(write("vertical")).build()

    def seeded(make: Callable[[], nn.Module], *place: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(5, "model", *place))
            return make()

    people = cl.data.breast_cancer(seed=5).split_columns(
        {"imaging": ["mean *"], "pathology": ["worst *", "radius error"]}, seed=5
    )
    bottoms = {
        "imaging": seeded(lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU()), "bottoms", "imaging"),
        "pathology": seeded(lambda: nn.Sequential(nn.Linear(11, 4), nn.ReLU()), "bottoms", "pathology"),
    }
    graph = cl.vertical(bottoms, seeded(lambda: nn.Linear(12, 2), "top"), parties=people)
    sgd, adam = cl.optim.SGD(lr=0.1), cl.optim.Adam(lr=0.01, betas=(0.8, 0.99))
    optimizers = {name: adam if name == "top" else sgd for name in graph.order}
    program = cl.Study(graph=graph, optimizer=optimizers, seed=5)

    assert agreed(study) == agreed(program)
    assert set(study.code) == {"model.py"}
    assert same_bits(study.simulate(holdings), program.simulate(people))


def test_networks_of_cutlayer_take_the_seed_of_the_study(write: Write) -> None:
    study, _ = load_study(write("chain")).build()
    network = cl.networks.mlp((64, 16, 10), seed=3)
    assert torch.equal(
        study.graph.segments["head"].module.state_dict()["linear1.weight"], network.linear1.weight
    )


def test_labels_at_the_server(write: Write) -> None:
    study, holdings = load_study(write("chain", ('"digits"', '"digits"\nlabels = "server"'))).build()
    assert not study.graph.shares
    assert set(holdings.fields("client")) == {"x"}
    assert set(holdings.fields("server")) == {"y"}
    assert study.simulate(holdings).equals(study.central(holdings))


def test_all_settings_arrive(write: Write) -> None:
    changes = ("[study]", '[study]\nbatch_size = 7\nmetrics = ["auc"]\nevaluate = ["test"]\ndrop_last = true')
    more = """
    [schedule]
    handover = "server"
    turn = 2

    [early_stopping]
    metric = "accuracy"
    patience = 3
    split = "test"
    """
    study, _ = load_study(
        write("chain", changes, ("seed = 3", "seed = 3\nshuffle = false"), more=more)
    ).build()
    assert (study.batch_size, study.metrics, study.evaluate) == (7, ("auc",), ("test",))
    assert (study.drop_last, study.shuffle, study.seed, study.epochs) == (True, False, 3, 2)
    assert study.schedule == cl.RoundRobin(handover="server", turn=2)
    assert study.early_stopping == cl.EarlyStopping(metric="accuracy", patience=3, split="test")
    assert study.name == "study"


def test_defaults_are_those_of_the_python_program() -> None:
    tables = Tables.model_validate(
        {
            "graph": {"topology": "vanilla", "model": "mlp", "cut": 0.5},
            "data": {"source": "digits"},
            "optimizer": {"name": "SGD"},
        }
    )
    known = {field.name: field.default for field in dataclasses.fields(cl.Study)}
    for name, value in tables.study.model_dump(exclude={"name"}).items():
        assert known[name] == (tuple(value) if isinstance(value, list) else value), name
    assert tables.schedule.model_dump() == dataclasses.asdict(cl.RoundRobin())
    stopping = Tables.model_fields["early_stopping"].annotation
    assert get_args(stopping)[0]().model_dump() == dataclasses.asdict(cl.EarlyStopping())
    assert set(get_args(Metric)) == {name for names in METRICS.values() for name in names}
    assert all(issubclass(getattr(nn, name), nn.Module) for name in LOSSES.values())


# Topologies


def test_multi_hop(write: Write) -> None:
    changes = (
        ('"vanilla"', '"multi_hop"'),
        ('cut = "activation1"', 'cuts = ["linear1", "activation1"]\nhops = ["relay"]'),
    )
    study, _ = load_study(write("chain", *changes)).build()
    assert list(study.graph.roles) == ["client", "relay", "server"]


def test_extended_vanilla(write: Write) -> None:
    changes = (
        '"vertical"',
        '"extended_vanilla"\nmiddle = { function = "model.py:middle", arguments = { size = 12 } }',
    )
    study, holdings = load_study(write("vertical", changes)).build()
    assert study.graph.segments["middle"].role == "worker"
    assert study.simulate(holdings).equals(study.central(holdings))


def test_each_task_has_its_own_label_column(write: Write, patients: Path) -> None:
    study, holdings = load_study(write("multi_task")).build()
    parties = {party.name: party for party in holdings.parties}
    stay, clinic = parties["stay"].splits["test"], parties["clinic"].splits["test"]
    assert parties["risk"].splits["test"].fields["y"].dtype == torch.int64
    assert stay.fields["y"].dtype == torch.float32
    assert set(stay.ids) == set(clinic.ids)
    line = next(row for row in patients.read_text().splitlines() if row.startswith(f"{stay.ids[0]},"))
    assert stay.fields["y"][0].item() == pytest.approx(float(line.split(",")[-1]))
    run = study.simulate(holdings)
    assert set(run.metrics("test", "loss-risk")) == {"loss", "accuracy", "auc", "f1"}
    assert set(run.metrics("test", "loss-stay")) == {"loss", "mae", "rmse", "r2"}


def test_several_tasks_learn_like_their_uncut_twin(write: Write, patients: Path) -> None:
    study, holdings = load_study(write("multi_task")).build()
    assert study.simulate(holdings).equals(study.central(holdings))


def test_a_label_column_is_no_input(write: Write, patients: Path) -> None:
    with pytest.raises(DataError, match="there is no column 'days'"):
        load_study(write("multi_task", ('["bmi"]', '["days"]'))).build()
    with pytest.raises(
        DataError, match=r"no label column 'day' \(study.toml, \[data\]\); did you mean 'days'"
    ):
        load_study(write("multi_task", ('stay = "days"', 'stay = "day"'))).build()


# Sources


def test_csv_dealt_by_a_column(write: Write, patients: Path) -> None:
    data = 'source = "csv"\npath = "patients.csv"\nlabel = "sick"\nid = "patient"\ndrop = ["days"]'
    changes = (
        ('function = "mlp"', 'function = "model.py:network"'),
        ("sizes = [64, 16, 10]", "classes = 2"),
        ('source = "digits"', data),
        ("parties = 2", 'by = "site"'),
        ('"activation1"', '"1"'),
    )
    path = write("chain", *changes)
    study, holdings = load_study(path).build()
    assert [party.name for party in holdings.parties] == ["north", "south"]
    assert holdings.fields("client")["x"].shape == (2,)  # age and bmi; the site is no input
    assert study.graph.roles["client"].fields["x"] is not None


def test_npz_and_images(write: Write, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", x_train=images, y_train=np.arange(20) % 2)
    path = write(
        "chain",
        ('source = "digits"', 'source = "npz"\npath = "some.npz"\nscale = "none"'),
        ("[64, 16, 10]", "[16, 4, 2]"),
    )
    x = load_study(path).holdings().example("client")["x"]
    assert x.shape[1:] == (1, 4, 4)
    assert x.max() > 1

    Image = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install 'cutlayer[images]'")
    for i, picture in enumerate(images):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    path = write("chain", ('source = "digits"', 'source = "images"\npath = "pictures"\nsize = [8, 6]'))
    assert load_study(path).holdings().example("client")["x"].shape[1:] == (1, 8, 6)


def test_parquet_with_preparation(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'cutlayer[parquet]'")
    import pandas as pd

    table = pd.DataFrame({"age": [30.0, None, 50.0, 61.0] * 5, "sick": [0, 1, 0, 1] * 5})
    table.to_parquet(tmp_path / "some.parquet")
    data = 'source = "parquet"\npath = "some.parquet"\nlabel = "sick"'
    for preparation, width in (("", 1), ("\npreparation = { missing_indicator = true }", 2)):
        holdings = load_study(write("chain", ('source = "digits"', data + preparation))).holdings()
        assert holdings.fields("client")["x"].shape == (width,)


def test_own_seed_of_the_deal(write: Write) -> None:
    def ids(*changes: tuple[str, str]) -> list[int]:
        party = load_study(write("chain", *changes)).holdings().parties[0]
        return sorted(party.splits["train"].ids.tolist())

    other_seed = ("seed = 3", "seed = 4")
    fixed = ("parties = 2", "parties = 2\nseed = 1\n[data.hold_out]\nseed = 1")
    assert ids() != ids(other_seed)
    assert ids(fixed) == ids(fixed, other_seed)


def test_a_loss_of_ones_own(write: Write, patients: Path) -> None:
    data = 'source = "csv"\npath = "patients.csv"\nlabel = "days"\ndrop = ["patient", "sick"]'
    changes = (
        ('function = "mlp"', 'function = "model.py:network"'),
        ("sizes = [64, 16, 10]", "classes = 1"),
        ('cut = "activation1"', 'cut = "1"\nloss = "model.py:absolute"'),
        ('source = "digits"', data),
    )  # fmt: skip
    study, holdings = load_study(write("chain", *changes)).build()
    assert study.simulate(holdings).equals(study.central(holdings))
