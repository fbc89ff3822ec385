"""What is wrong with a study file is said clearly: file, table, key."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import CutlayerError, StudyError
from cutlayer.study_file import load_study
from cutlayer.study_file.tables import Tables

Write = Callable[..., Path]
ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "digits" / "study.toml"


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
    (('cut = ', 'defences = ["nopeek:0.5"]\ncut = '), "a table of its own: [defences], or before the first table"),
    (("seed = 3", 'optimizer = "SGD"'), "[study]: unknown key 'optimizer'; it is a table of its own: [optimizer]"),
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
def test_a_wrong_file_is_told_where_and_what(change: tuple[str, str], message: str, write: Write) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write("chain", change))
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
def test_tables_must_fit_together(change: tuple[str, str], message: str, write: Write) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write("vertical", change))
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
def test_errors_of_building_name_the_table(change: tuple[str, str], message: str, write: Write) -> None:
    file = load_study(write("chain", change))
    with pytest.raises(CutlayerError) as caught:
        file.build()
    assert message in str(caught.value)
    assert "study.toml" in str(caught.value)


def test_all_problems_are_told_at_once(write: Write) -> None:
    with pytest.raises(StudyError, match="2 problems") as caught:
        load_study(write("chain", ("seed = 3", "seed = 1.5"), ("parties = 2", "parties = 0")))
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
        "schedule": {"name", "handover", "turn", "accumulate", "in_flight", "clip", "local"},
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
    with pytest.raises(StudyError, match=r"is a folder; name a study.toml"):
        load_study(tmp_path)


def test_the_study_in_the_docs_is_right() -> None:
    text = (ROOT / "docs" / "study-file.md").read_text()
    Tables.model_validate(tomllib.loads(text.split("```toml\n")[1].split("```")[0]))


def test_reading_needs_no_torch() -> None:
    code = "import sys; from cutlayer.study_file import load_study; load_study(sys.argv[1]); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(EXAMPLE)], check=False).returncode == 0
