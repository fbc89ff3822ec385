"""A study file says the same as a Python program, and says clearly what is wrong with it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cutlayer as cl
from cutlayer.errors import CutlayerError, DataError, StudyError
from cutlayer.metering.metrics import METRICS
from cutlayer.seeds import stream
from cutlayer.study_file import load_study
from cutlayer.study_file.functions import Functions
from cutlayer.study_file.tables import Tables
from cutlayer.study_file.words import LOSSES, Call, Metric

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits" / "study.toml"

CHAIN = """
[study]
seed = 3
epochs = 2

[graph]
topology = "vanilla"
model = { function = "mlp", arguments = { sizes = [64, 16, 10] } }
cut = "activation1"

[data]
source = "digits"

[data.rows]
parties = 2

[optimizer]
name = "SGD"
lr = 0.1
"""

VERTICAL = """
[study]
seed = 5

[graph]
topology = "vertical"
top = "model.py:top"
merge = "concat"

[graph.bottoms]
imaging = "model.py:bottom"
pathology = { function = "model.py:bottom", arguments = { hidden = 4 } }

[data]
source = "breast_cancer"

[data.columns]
imaging = ["mean *"]
pathology = ["worst *", "radius error"]

[optimizer]
name = "SGD"
lr = 0.1

[optimizers.top]
name = "Adam"
lr = 0.01
betas = [0.8, 0.99]
"""

MODELS = """
from torch import nn

def network(input_shape, hidden=8, classes=10):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes))

def bottom(input_shape, hidden=8):
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU())

def top(inputs=12, outputs=2):
    return nn.Linear(inputs, outputs)

def middle(size=16):
    return nn.Linear(size, size)

def absolute(prediction, label):
    return (prediction.flatten() - label).abs().mean()

def broken():
    raise ValueError("no such thing")

def number():
    return 3

made = nn.Linear(2, 2)
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a study file and its models, with some words replaced."""

    def write(text: str, *changes: tuple[str, str], more: str = "", models: str = MODELS) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "model.py").write_text(models)
        path = tmp_path / "study.toml"
        path.write_text(text + textwrap.dedent(more))
        return path

    return write


def same_bits(run: cl.Run, other: cl.Run) -> bool:
    mine, theirs = run.weights(), other.weights()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(t, theirs[s][n]) for s, state in mine.items() for n, t in state.items())


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

    assert study.digest == program.digest
    run = study.simulate(holdings)
    assert same_bits(run, program.simulate(people))
    assert run.metrics("test")["accuracy"] > 0.9


def test_vertical_file_gives_the_bits_of_the_python_program(write: Callable[..., Path]) -> None:
    study, holdings = load_study(write(VERTICAL)).build()

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

    assert study.digest == program.digest
    assert same_bits(study.simulate(holdings), program.simulate(people))


def test_networks_of_cutlayer_take_the_seed_of_the_study(write: Callable[..., Path]) -> None:
    study, _ = load_study(write(CHAIN)).build()
    network = cl.networks.mlp((64, 16, 10), seed=3)
    assert torch.equal(
        study.graph.segments["head"].module.state_dict()["linear1.weight"], network.linear1.weight
    )


def test_labels_at_the_server(write: Callable[..., Path]) -> None:
    study, holdings = load_study(write(CHAIN, ('"digits"', '"digits"\nlabels = "server"'))).build()
    assert not study.graph.shares
    assert set(holdings.fields("client")) == {"x"}
    assert set(holdings.fields("server")) == {"y"}
    assert study.simulate(holdings).equals(study.central(holdings))


def test_all_settings_arrive(write: Callable[..., Path]) -> None:
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
    study, _ = load_study(write(CHAIN, changes, ("seed = 3", "seed = 3\nshuffle = false"), more=more)).build()
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


def test_multi_hop(write: Callable[..., Path]) -> None:
    changes = (
        ('"vanilla"', '"multi_hop"'),
        ('cut = "activation1"', 'cuts = ["linear1", "activation1"]\nhops = ["relay"]'),
    )
    study, _ = load_study(write(CHAIN, *changes)).build()
    assert list(study.graph.roles) == ["client", "relay", "server"]


def test_extended_vanilla(write: Callable[..., Path]) -> None:
    changes = (
        '"vertical"',
        '"extended_vanilla"\nmiddle = { function = "model.py:middle", arguments = { size = 12 } }',
    )
    study, holdings = load_study(write(VERTICAL, changes)).build()
    assert study.graph.segments["middle"].role == "worker"
    assert study.simulate(holdings).equals(study.central(holdings))


def table_of_patients(path: Path, rows: int = 60) -> None:
    rng = np.random.default_rng(0)
    lines = ["patient,age,bmi,site,sick,days"]
    for i in range(rows):
        age, bmi = rng.integers(20, 90), rng.normal(25, 4)
        site, sick = "north" if i % 3 else "south", "yes" if age > 55 else "no"
        lines.append(f"p{i},{age},{bmi:.2f},{site},{sick},{bmi / 5:.3f}")
    path.write_text("\n".join(lines) + "\n")


MULTI_TASK = """
[graph]
topology = "multi_task"
losses = { stay = "mse" }
weights = { stay = 0.1 }

[graph.bottoms]
clinic = "model.py:bottom"
registry = "model.py:bottom"

[graph.tops]
risk = { function = "model.py:top", arguments = { inputs = 16 } }
stay = { function = "model.py:top", arguments = { inputs = 16, outputs = 1 } }

[data]
source = "csv"
path = "patients.csv"
id = "patient"
label = "sick"

[data.hold_out]
test = 0.25

[data.columns]
clinic = ["bmi"]
registry = ["age", "site"]

[data.labels]
risk = "sick"
stay = "days"

[optimizer]
name = "SGD"
lr = 0.01
"""


def test_each_task_has_its_own_label_column(write: Callable[..., Path], tmp_path: Path) -> None:
    table_of_patients(tmp_path / "patients.csv")
    study, holdings = load_study(write(MULTI_TASK)).build()
    parties = {party.name: party for party in holdings.parties}
    stay, clinic = parties["stay"].splits["test"], parties["clinic"].splits["test"]
    assert parties["risk"].splits["test"].fields["y"].dtype == torch.int64
    assert stay.fields["y"].dtype == torch.float32
    assert set(stay.ids) == set(clinic.ids)
    line = next(
        row
        for row in (tmp_path / "patients.csv").read_text().splitlines()
        if row.startswith(f"{stay.ids[0]},")
    )
    assert stay.fields["y"][0].item() == pytest.approx(float(line.split(",")[-1]))
    run = study.simulate(holdings)
    assert set(run.metrics("test", "loss-risk")) == {"loss", "accuracy", "auc", "f1"}
    assert set(run.metrics("test", "loss-stay")) == {"loss", "mae", "rmse", "r2"}


def test_several_tasks_learn_like_their_uncut_twin(write: Callable[..., Path], tmp_path: Path) -> None:
    table_of_patients(tmp_path / "patients.csv")
    study, holdings = load_study(write(MULTI_TASK)).build()
    assert study.simulate(holdings).equals(study.central(holdings))


def test_a_label_column_is_no_input(write: Callable[..., Path], tmp_path: Path) -> None:
    table_of_patients(tmp_path / "patients.csv")
    with pytest.raises(DataError, match="there is no column 'days'"):
        load_study(write(MULTI_TASK, ('["bmi"]', '["days"]'))).build()
    with pytest.raises(
        DataError, match=r"no label column 'day' \(study.toml, \[data\]\); did you mean 'days'"
    ):
        load_study(write(MULTI_TASK, ('stay = "days"', 'stay = "day"'))).build()


# Sources


def test_csv_dealt_by_a_column(write: Callable[..., Path], tmp_path: Path) -> None:
    table_of_patients(tmp_path / "patients.csv")
    data = 'source = "csv"\npath = "patients.csv"\nlabel = "sick"\nid = "patient"\ndrop = ["days"]'
    text = CHAIN.replace('{ function = "mlp", arguments = { sizes = [64, 16, 10] } }', '"model.py:network"')
    path = write(text, ('source = "digits"', data), ("parties = 2", 'by = "site"'), ('"activation1"', '"1"'))
    study, holdings = load_study(path).build()
    assert [party.name for party in holdings.parties] == ["north", "south"]
    assert holdings.fields("client")["x"].shape == (2,)  # age and bmi; the site is no input
    assert study.graph.roles["client"].fields["x"] is not None


def test_npz_and_images(write: Callable[..., Path], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", x_train=images, y_train=np.arange(20) % 2)
    path = write(
        CHAIN,
        ('source = "digits"', 'source = "npz"\npath = "some.npz"\nscale = "none"'),
        ("[64, 16, 10]", "[16, 4, 2]"),
    )
    x = load_study(path).holdings().example("client")["x"]
    assert x.shape[1:] == (1, 4, 4)
    assert x.max() > 1

    Image = pytest.importorskip("PIL.Image")
    for i, picture in enumerate(images):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
    path = write(CHAIN, ('source = "digits"', 'source = "images"\npath = "pictures"\nsize = [8, 6]'))
    assert load_study(path).holdings().example("client")["x"].shape[1:] == (1, 8, 6)


def test_parquet_with_preparation(write: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    table = pd.DataFrame({"age": [30.0, None, 50.0, 61.0] * 5, "sick": [0, 1, 0, 1] * 5})
    table.to_parquet(tmp_path / "some.parquet")
    data = 'source = "parquet"\npath = "some.parquet"\nlabel = "sick"'
    for preparation, width in (("", 1), ("\npreparation = { missing_indicator = true }", 2)):
        holdings = load_study(write(CHAIN, ('source = "digits"', data + preparation))).holdings()
        assert holdings.fields("client")["x"].shape == (width,)


def test_own_seed_of_the_deal(write: Callable[..., Path]) -> None:
    def ids(*changes: tuple[str, str]) -> list[int]:
        party = load_study(write(CHAIN, *changes)).holdings().parties[0]
        return sorted(party.splits["train"].ids.tolist())

    other_seed = ("seed = 3", "seed = 4")
    fixed = ("parties = 2", "parties = 2\nseed = 1\n[data.hold_out]\nseed = 1")
    assert ids() != ids(other_seed)
    assert ids(fixed) == ids(fixed, other_seed)


def test_the_study_in_the_docs_is_right() -> None:
    text = (EXAMPLE.parent.parent.parent / "docs" / "study-file.md").read_text()
    Tables.model_validate(tomllib.loads(text.split("```toml\n")[1].split("```")[0]))


# What is wrong with a file

WRONG = [
    (("seed = 3", "sed = 3"), "study.toml, [study]: unknown key 'sed'; did you mean 'seed'?"),
    (("epochs = 2", 'epochs = "2"'), '[study] epochs: wrong value; got "2"; expected a whole number'),
    (("epochs = 2", "epochs = true"), "[study] epochs: wrong value; got true; expected a whole number"),
    (("epochs = 2", "epochs = 0"), "[study] epochs: wrong value; got 0; expected 1 or more"),
    (("seed = 3", 'metrics = ["acuracy"]'), "[study] metrics, entry 1: wrong value"),
    (("seed = 3", 'name = "../up"'), "[study] name: wrong value"),
    (('"vanilla"', '"vanila"'), "[graph] topology: wrong value; got \"vanila\""),
    (('topology = "vanilla"\n', ""), "[graph]: the key 'topology' is missing"),
    (('cut = "activation1"', 'cuts = ["activation1"]'), "[graph]: unknown key 'cuts'; did you mean 'cut'?"),
    (('cut = "activation1"', "cut = 3"), "[graph] cut: wrong value; got 3; expected a module's name"),
    (('cut = "activation1"', ""), "[graph]: the key 'cut' is missing"),
    (('cut = ', 'loss = "crossentropy"\ncut = '), "did you mean 'cross_entropy'?"),
    (("function =", "funktion ="), "[graph.model]: unknown key 'funktion'; did you mean 'function'?"),
    (('source = "digits"', 'source = "digit"'), "[data] source: wrong value; got \"digit\""),
    (('source = "digits"', 'source = "csv"\nlabel = "y"'), "[data]: the key 'path' is missing"),
    (("[data.rows]", "[data.row]"), "[data]: unknown key 'row'; did you mean 'rows'?"),
    (("parties = 2", "parties = 2.5"), "[data.rows] parties: wrong value; got 2.5; expected a whole number"),
    (("parties = 2", 'by = "even"'), "[data.rows]: by = 'even' needs a number of parties"),
    (("parties = 2", 'parties = 2\nby = "site"'), "[data.rows]: by = 'site' names a column"),
    (("[data.rows]", "[data.hold_out]\ntest = 20\n[data.rows]"), "[data.hold_out] test: wrong value; got 20"),
    (("[data.rows]\nparties = 2", 'columns = { a = ["b"] }'), "vanilla has clients with whole rows"),
    (('source = "digits"', 'source = "digits"\nlabels = "sever"'), 'say labels = "server"'),
    (("[optimizer]", "[optimiser]"), "unknown table [optimiser]; did you mean 'optimizer'?"),
    (('[optimizer]\nname = "SGD"\nlr = 0.1\n', ""), "there is no [optimizer]"),
    (("lr = 0.1", "lr = nan"), "lr is not a finite number"),
    (("lr = 0.1", "lr = "), "study.toml is not TOML"),
    (("[optimizer]", '[schedule]\nhandover = "per"\n[optimizer]'), "did you mean 'peer'?"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_file_is_told_where_and_what(
    change: tuple[str, str], message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write(CHAIN, change))
    assert message in str(caught.value)
    assert "study.toml" in str(caught.value)


WRONG_TOGETHER = [
    (("[data.columns]\n", "[data.column]\n"), "[data]: unknown key 'column'; did you mean 'columns'?"),
    (('imaging = ["mean *"]', ""), "[graph.bottoms] has 'imaging', [data.columns] has not"),
    (('imaging = "model.py:bottom"', ""), "[data.columns] has 'imaging', [graph.bottoms] has not"),
    (('"breast_cancer"', '"breast_cancer"\nlabels = "imaging"'), "the loss is at 'server'"),
]


@pytest.mark.parametrize(
    ("change", "message"), WRONG_TOGETHER, ids=[message for _, message in WRONG_TOGETHER]
)
def test_tables_must_fit_together(change: tuple[str, str], message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write(VERTICAL, change))
    assert message in str(caught.value)


WRONG_WHEN_BUILT = [
    (("lr = 0.1", "learning_rate = 0.1"), "[optimizer]"),
    (("lr = 0.1", "lr = 0.1\nmomentm = 0.9"), "did you mean 'momentum'?"),
    (("lr = 0.1", "lr = -1"), "PyTorch refuses SGD(lr=-1)"),
    (('name = "SGD"', 'name = "SDG"'), "did you mean 'SGD'?"),
    (("lr = 0.1", 'lr = 0.1\nschedule = { name = "StepLR", step = 3 }'), "[optimizer.schedule]"),
    (("lr = 0.1", "\n[optimizers.haed]\nname = 'SGD'"), "study.toml, [optimizers]); did you mean 'head'"),
    (('cut = "activation1"', 'cut = "activation7"'), "(study.toml, [graph])"),
    (('function = "mlp"', 'function = "mpl"'), "'mpl' (study.toml, [graph]); did you mean 'mlp'"),
    (('sizes =', 'size ='), "mlp has no parameter 'size'"),
    (("seed = 3", 'device = "gpu"'), "PyTorch knows no device 'gpu'"),
    (('source = "digits"', 'source = "npz"\npath = "none.npz"'), "none.npz"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"), WRONG_WHEN_BUILT, ids=[message for _, message in WRONG_WHEN_BUILT]
)
def test_errors_of_building_name_the_table(
    change: tuple[str, str], message: str, write: Callable[..., Path]
) -> None:
    file = load_study(write(CHAIN, change))
    with pytest.raises(CutlayerError) as caught:
        file.build()
    assert message in str(caught.value)
    assert "study.toml" in str(caught.value)


def test_all_problems_are_told_at_once(write: Callable[..., Path]) -> None:
    with pytest.raises(StudyError, match="2 problems") as caught:
        load_study(write(CHAIN, ("seed = 3", "seed = 1.5"), ("parties = 2", "parties = 0")))
    assert "[study] seed" in str(caught.value)
    assert "[data.rows] parties" in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    table=st.sampled_from(["study", "graph", "data", "schedule"]),
    key=st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
)
def test_no_unknown_key_passes(table: str, key: str) -> None:
    content = {
        "study": {},
        "graph": {"topology": "vanilla", "model": "mlp", "cut": 0.5},
        "data": {"source": "digits"},
        "schedule": {},
        "optimizer": {"name": "SGD"},
    }
    known = {
        "study": set(Tables.model_fields["study"].annotation.model_fields),
        "graph": {"topology", "model", "cut", "loss", "server"},
        "data": {"source", "hold_out", "rows", "columns", "labels"},
        "schedule": {"name", "handover", "turn"},
    }
    if key in known[table]:
        return
    content[table][key] = "something"
    with pytest.raises(ValueError, match="unknown_key"):
        Tables.model_validate(content)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match=r"did you mean 'study.toml'"):
        load_study(tmp_path / "stdy.toml")
    with pytest.raises(StudyError, match="UTF-8"):
        load_study(tmp_path / "study.toml")
    with pytest.raises(StudyError, match="there is no file"):
        load_study(tmp_path)


# Models


@pytest.fixture
def functions(tmp_path: Path) -> Functions:
    (tmp_path / "model.py").write_text(MODELS)
    return Functions(tmp_path, seed=1)


def weight(module: nn.Module) -> torch.Tensor:
    return next(module.parameters())


def test_weights_depend_on_seed_and_place_only(functions: Functions, tmp_path: Path) -> None:
    call = Call(function="model.py:top")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = weight(functions.make(call, "top"))
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers go on as if nothing had been
    assert torch.equal(first, weight(functions.make(call, "top")))
    assert not torch.equal(first, weight(functions.make(call, "middle")))
    assert not torch.equal(first, weight(Functions(tmp_path, seed=2).make(call, "top")))


def test_input_shape_is_filled_in_unless_given(functions: Functions) -> None:
    call = Call(function="model.py:bottom")
    assert weight(functions.make(call, input_shape=(5,))).shape == (8, 5)
    given = Call(function="model.py:bottom", arguments={"input_shape": [3]})
    assert weight(functions.make(given, input_shape=(5,))).shape == (8, 3)


@pytest.mark.parametrize(
    ("word", "arguments", "message"),
    [
        ("modle.py:top", {}, "did you mean 'model.py'?"),
        ("model.py:tob", {}, "model.py has no function 'tob'; did you mean 'top'?"),
        ("model.py:top", {"input": 3}, "has no parameter 'input'; did you mean 'inputs'?"),
        ("model.py:bottom", {}, "needs a value for 'input_shape'"),
        ("model.py:broken", {}, "failed: ValueError: no such thing"),
        ("model.py:number", {}, "returned no module; got int"),
        ("model.py:made", {}, "is not a function; got Linear"),
        ("wrong.py:top", {}, "cannot be executed: SyntaxError"),
        ("vgg_16", {}, "did you mean 'vgg16'?"),
    ],
)
def test_a_wrong_model_is_told(
    word: str, arguments: dict[str, object], message: str, functions: Functions, tmp_path: Path
) -> None:
    (tmp_path / "wrong.py").write_text("def top(:\n")
    with pytest.raises(StudyError) as caught:
        functions.make(Call(function=word, arguments=arguments))
    assert message in str(caught.value)


def test_a_model_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "my_layers_beside.py").write_text("from torch.nn import Linear as Layer\n")
    (tmp_path / "model.py").write_text(
        "from my_layers_beside import Layer\ndef network():\n    return Layer(2, 3)\n"
    )
    before = list(sys.path)
    try:
        made = Functions(tmp_path).make(Call(function="model.py:network"))
    finally:
        sys.modules.pop("my_layers_beside", None)
    assert weight(made).shape == (3, 2)
    assert sys.path == before


def test_a_loss_of_ones_own(write: Callable[..., Path], tmp_path: Path) -> None:
    table_of_patients(tmp_path / "patients.csv")
    data = 'source = "csv"\npath = "patients.csv"\nlabel = "days"\ndrop = ["patient", "sick"]'
    changes = (
        ('function = "mlp"', 'function = "model.py:network"'),
        ("sizes = [64, 16, 10]", "classes = 1"),
        ('cut = "activation1"', 'cut = "1"\nloss = "model.py:absolute"'),
        ('source = "digits"', data),
    )  # fmt: skip
    study, holdings = load_study(write(CHAIN, *changes)).build()
    assert study.simulate(holdings).equals(study.central(holdings))


def test_reading_needs_no_torch() -> None:
    code = "import sys; from cutlayer.study_file import load_study; load_study(sys.argv[1]); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(EXAMPLE)], check=False).returncode == 0
