"""Each party builds the study from its own folder, and all build the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cutlayer as cl
from cutlayer.data import PartyData
from cutlayer.errors import CutlayerError, DataError, StudyError
from cutlayer.study_file import load_study
from cutlayer.study_file.rehearsal import field_lines

Write = Callable[..., Path]
Change = tuple[str, str]

U_SHAPED: list[Change] = [
    ('"vanilla"', '"u_shaped"'),
    ('cut = "activation1"', 'cuts = ["linear1", "activation1"]'),
]
MULTI_HOP: list[Change] = [
    ('"vanilla"', '"multi_hop"'),
    ('cut = "activation1"', 'cuts = ["linear1", "activation1"]\nhops = ["relay"]'),
]
OWN_MODEL: list[Change] = [
    ('function = "mlp"', 'function = "model.py:network"'),
    ("sizes = [64, 16, 10]", "hidden = 9"),
    ('"activation1"', '"1"'),
]
NORMED = """
def normed(input_shape):
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""
STUDIES: dict[str, tuple[str, list[Change]]] = {
    "vanilla": ("chain", []),
    "vanilla, own model": ("chain", OWN_MODEL),
    "vanilla, own loss": ("chain", [('"activation1"', '"activation1"\nloss = "model.py:absolute"')]),
    "vanilla, share of FLOPs": ("chain", [('cut = "activation1"', "cut = 0.3")]),
    "vanilla, labels at the server": ("chain", [('"digits"', '"digits"\nlabels = "server"')]),
    "u_shaped": ("chain", U_SHAPED),
    "multi_hop": ("chain", MULTI_HOP),
    "vertical": ("vertical", []),
    "vertical, several of each": ("vertical", [("[data.columns]", "[data.rows]\nparties = 2\n[data.columns]")]),
    "multi_task": ("multi_task", []),
}  # fmt: skip


def same(one: PartyData, other: PartyData) -> bool:
    """Return whether both hold the same bits."""
    if (one.name, one.role, one.group, list(one.splits)) != (
        other.name,
        other.role,
        other.group,
        list(other.splits),
    ):
        return False
    for split, records in one.splits.items():
        theirs = other.splits[split]
        if records.ids.dtype != theirs.ids.dtype or records.ids.tolist() != theirs.ids.tolist():
            return False
        rows = torch.arange(len(records))
        mine, yours = records.read(rows, 0), theirs.read(rows, 0)
        if list(mine) != list(yours) or not all(torch.equal(mine[n], yours[n]) for n in mine):
            return False
    return True


@pytest.mark.parametrize("kind", STUDIES)
def test_all_parties_build_the_study_that_the_pooled_data_give(
    kind: str, write: Write, patients: Path, tmp_path: Path
) -> None:
    name, changes = STUDIES[kind]
    path = write(name, *changes)
    study, holdings = load_study(path).build()
    own = {party.name: party for party in holdings.parties}
    folders = load_study(path).deal(tmp_path / "parties")
    assert list(folders) == [party.name for party in study.graph.parties]
    patients.unlink()

    for party, folder in folders.items():
        local = load_study(folder / "study.toml").at(party, folder if party in own else None)
        assert local.study.parts == study.parts
        assert local.study.digest == study.digest
        assert local.study.graph.describe() == study.graph.describe()
        assert local.study.disclosure(party) == study.disclosure(party)
        assert local.network.host == load_study(path).tables.roles.host
        assert (local.own is None) == (party not in own)
        if local.own is not None:
            assert same(local.own, own[party])
            fields = [f for r in local.own.splits.values() for f in r.fields.values()]
            assert all(field.data_ptr() % 64 == 0 for field in fields if isinstance(field, torch.Tensor))


def test_training_from_the_folders_gives_the_bits_of_the_simulation(write: Write, tmp_path: Path) -> None:
    path = write("chain", *U_SHAPED)
    study, holdings = load_study(path).build()
    folders = load_study(path).deal(tmp_path / "parties")
    local = [load_study(f / "study.toml").at(p, f) for p, f in folders.items() if p != "server"]
    people = cl.data.Holdings(tuple(one.own for one in local if one.own is not None))
    assert local[0].study.simulate(people).equals(study.simulate(holdings))


def test_running_statistics_do_not_depend_on_the_example(write: Write, tmp_path: Path) -> None:
    path = write("chain", *OWN_MODEL, ("hidden = 9", ""), ("py:network", "py:normed"), ('"1"', '"2"'))
    (tmp_path / "model.py").write_text((tmp_path / "model.py").read_text() + NORMED)
    folders = load_study(path).deal(tmp_path / "parties")
    parts = load_study(folders["server"] / "study.toml").at("server").study.parts
    assert parts == load_study(path).build()[0].parts


def test_without_a_folder_a_party_has_its_part_of_the_pooled_data(write: Write) -> None:
    path = write("chain")
    study, holdings = load_study(path).build()
    local = load_study(path).at("client-1")
    assert local.own is not None
    assert same(local.own, holdings.party("client-1"))
    assert local.study.parts == study.parts


def test_parties_are_named_in_the_order_of_turns(write: Write) -> None:
    more = '\n[parties]\nnorth = "client"\nhub = "server"\nsouth = "client"\n'
    study, holdings = load_study(write("chain", more=more)).build()
    assert study.graph.roles["client"].parties == ("north", "south")
    assert study.graph.roles["server"].parties == ("hub",)
    _, before = load_study(write("chain")).build()
    assert [p.name for p in holdings.parties] == ["north", "south"]
    assert holdings.parties[1].splits["train"].ids.tolist() == before.parties[1].splits["train"].ids.tolist()
    assert load_study(write("chain", more=more)).at("south").network.host == "hub"
    run = study.simulate(holdings)
    assert run.equals(study.central(holdings))


def test_data_that_are_elsewhere_can_be_described_and_not_trained_on(
    write: Write, patients: Path, tmp_path: Path
) -> None:
    folders = load_study(write("multi_task")).deal(tmp_path / "parties")
    study, holdings = load_study(folders["clinic"] / "study.toml").build()
    assert "clinic" in study.describe()
    assert "float32[1]" in holdings.table()
    assert len(list(study.program(holdings))) > 0
    with pytest.raises(DataError, match=r"these data are not here, .*cutlayer join"):
        study.simulate(holdings)


def test_dealt_files_hold_the_code_they_need(write: Write, tmp_path: Path) -> None:
    path = write("chain", *OWN_MODEL)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "__init__.py").write_text("from .blocks import Linear\n")
    (tmp_path / "layers" / "blocks.py").write_text("from torch.nn import Linear\n")
    (tmp_path / "model.py").write_text(
        "from torch import nn\nfrom layers import Linear\n\n"
        "def network(input_shape, hidden):\n"
        "    return nn.Sequential(Linear(input_shape[0], hidden), nn.ReLU(), Linear(hidden, 10))\n"
    )
    folders = load_study(path).deal(tmp_path / "parties")
    (tmp_path / "layers" / "blocks.py").write_text("raise RuntimeError\n")
    study = load_study(folders["server"] / "study.toml").at("server").study
    assert set(study.code) == {"model.py", "layers/__init__.py", "layers/blocks.py"}
    (folders["client-0"] / "layers" / "blocks.py").write_text("from torch.nn import Linear  # other\n")
    other = load_study(folders["client-0"] / "study.toml").at("client-0", folders["client-0"]).study
    assert [n for n, part in study.parts.items() if part != other.parts[n]] == ["model code"]


# A party's own files


OWN_CSV: list[Change] = [
    ('function = "mlp"', 'function = "model.py:network"'),
    ("sizes = [64, 16, 10]", "classes = 2"),
    ('"activation1"', '"1"'),
    (
        'source = "digits"',
        'source = "csv"\npath = "own.csv"\nlabel = "sick"\nid = "patient"\n[data.hold_out]\ntest = 0.25',
    ),
    ("parties = 2", 'by = "site"'),
]


def test_whole_rows_of_ones_own(write: Write, patients: Path, tmp_path: Path) -> None:
    more = """
    [parties]
    north = "client"
    south = "client"
    [fields.client]
    x = "float32[3]"
    y = "int64[]"
    """
    path = write("chain", *OWN_CSV, more=more)
    header, *lines = patients.read_text().splitlines()
    studies = []
    for party in ("north", "south"):
        own = [line for line in lines if party in line]
        folder = tmp_path / party
        folder.mkdir()
        (folder / "own.csv").write_text("\n".join([header, *own]) + "\n")
        local = load_study(path).at(party, folder)
        assert local.own is not None
        assert {split: len(r) for split, r in local.own.splits.items()} == {
            "train": len(own) - len(own) // 4,
            "test": len(own) // 4,
        }
        studies.append(local.study)
    assert studies[0].parts == studies[1].parts == load_study(path).at("server").study.parts


def test_parts_of_rows_are_held_out_alike(write: Write, patients: Path, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.read_csv(patients)
    columns = {"clinic": ["bmi"], "registry": ["age", "site"], "risk": ["sick"], "stay": ["days"]}
    for number, (party, names) in enumerate(columns.items()):
        folder = tmp_path / "own" / party
        folder.mkdir(parents=True)
        own = table.sample(frac=1, random_state=number).loc[:, ["patient", *names]]
        own.to_csv(folder / "patients.csv", index=False)
    patients.unlink()
    more = """
    [parties]
    clinic = "clinic"
    registry = "registry"
    [fields]
    clinic = { x = "float32[1]" }
    registry = { x = "float32[3]" }
    risk = { y = "int64[]" }
    stay = { y = "float32[]" }
    """
    path = write("multi_task", more=more)
    local = {party: load_study(path).at(party, tmp_path / "own" / party) for party in columns}
    assert len({one.study.digest for one in local.values()}) == 1
    held = [set(one.own.splits["test"].ids.tolist()) for one in local.values() if one.own is not None]
    assert len(held) == 4
    assert all(ids == held[0] for ids in held)
    assert 0 < len(held[0]) < 30
    study = local["clinic"].study
    people = cl.data.Holdings(tuple(one.own for one in local.values() if one.own is not None))
    assert study.simulate(people).equals(study.central(people))


def test_labels_at_the_server_come_from_its_own_folder(write: Write, patients: Path, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.read_csv(patients)
    for party, names in {"client": ["age", "bmi", "sick"], "server": ["sick"]}.items():
        (tmp_path / party).mkdir()
        table[["patient", *names]].to_csv(tmp_path / party / "own.csv", index=False)
    more = """
    [parties]
    client = "client"
    [fields.client]
    x = "float32[2]"
    [fields.server]
    y = "int64[]"
    """
    labels = ('source = "csv"', 'source = "csv"\nlabels = "server"')
    one_client = ('\n\n[data.rows]\nby = "site"', "")
    path = write("chain", *OWN_CSV, labels, one_client, more=more)
    local = {party: load_study(path).at(party, tmp_path / party) for party in ("client", "server")}
    people = cl.data.Holdings(tuple(one.own for one in local.values() if one.own is not None))
    assert set(people.fields("client")) == {"x"}  # its own copy of the labels is no input
    study = local["client"].study
    assert study.digest == local["server"].study.digest
    assert not study.graph.shares
    assert study.simulate(people).equals(study.central(people))


def test_fields_as_lines_of_the_file(write: Write) -> None:
    _, holdings = load_study(write("chain")).build()
    assert field_lines(holdings.parties[0]) == '[fields.client]\nx = "float32[64]"\ny = "int64[]"'


# What is refused


def dealt(write: Write, tmp_path: Path) -> dict[str, Path]:
    return load_study(write("chain")).deal(tmp_path / "parties")


def refusal(error: type[CutlayerError], act: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)


def test_what_does_not_fit_is_told(write: Write, tmp_path: Path) -> None:
    folders = dealt(write, tmp_path)
    one, server = folders["client-0"], folders["server"]
    file = load_study(one / "study.toml")
    assert "did you mean 'client-0'" in refusal(StudyError, lambda: file.at("client0", one))
    assert "there is no folder" in refusal(DataError, lambda: file.at("client-0", tmp_path / "none"))
    assert "holds no data" in refusal(StudyError, lambda: file.at("server", one))
    assert "'digits' is read from no folder" in refusal(StudyError, lambda: file.at("client-0", server))
    text = (one / "study.toml").read_text()
    (one / "study.toml").write_text(text.replace("float32[64]", "float32[65]").replace("[64, 16", "[65, 16"))
    wrong = load_study(one / "study.toml")
    message = refusal(DataError, lambda: wrong.at("client-0", one))
    assert "client-0: the field 'x'" in message
    assert "got float32[64]" in message
    records = one / "records.safetensors"
    records.write_bytes(records.read_bytes()[:-9])
    assert "cannot be read" in refusal(DataError, lambda: file.at("client-0", one))
    records.write_bytes(b"")
    assert "cannot be read" in refusal(DataError, lambda: file.at("client-0", one))


def test_records_of_another_role_are_refused(write: Write, tmp_path: Path) -> None:
    folders = load_study(write("vertical")).deal(tmp_path / "parties")
    file = load_study(folders["imaging"] / "study.toml")
    message = refusal(DataError, lambda: file.at("imaging", folders["pathology"]))
    assert "the records of another role; got pathology; expected imaging" in message


def test_dealing_needs_a_new_folder_and_code_inside_the_studys(write: Write, tmp_path: Path) -> None:
    folders = dealt(write, tmp_path)
    again = refusal(StudyError, lambda: load_study(tmp_path / "study.toml").deal(tmp_path / "parties"))
    assert "is in use" in again
    inner = folders["server"] / "study.toml"
    words = inner.read_text().replace('"mlp"', '"../../model.py:network"')
    inner.write_text(words.replace("sizes = [64, 16, 10]", "hidden = 4").replace('"activation1"', '"1"'))
    assert "lies outside" in refusal(StudyError, lambda: load_study(inner).deal(tmp_path / "more"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[network]\nhost = "servre"', "no party 'servre'"),
        ('[network]\nabsent = "skip"\nlate = ["client-7"]', "no party 'client-7'"),
        ('[network]\nabsent = "skip"\nlate = ["server"]', "'server' takes part in every turn"),
        ('[network]\nabsent = "skip"\nlate = ["client-0", "client-1"]', "all parties of the role 'client'"),
    ],
)
def test_who_meets_where_must_be_in_the_study(more: str, message: str, write: Write) -> None:
    file = load_study(write("chain", more=f"\n{more}\n"))
    assert message in refusal(StudyError, lambda: file.at("server"))


def test_the_only_client_cannot_be_skipped(write: Write) -> None:
    file = load_study(write("chain", ("parties = 2", "parties = 1"), more='\n[network]\nabsent = "skip"\n'))
    assert "would skip the only client" in refusal(StudyError, lambda: file.at("server"))


def test_more_names_than_parties_are_refused(write: Write) -> None:
    more = '\n[parties]\na = "client"\nb = "client"\nc = "client"\n'
    assert "3 in [parties], 2 that rows are dealt to" in refusal(
        StudyError, load_study(write("chain", more=more)).build
    )


def test_missing_tables_are_named_where_no_pooled_data_are(write: Write) -> None:
    file = load_study(write("chain", *OWN_CSV))
    assert "add [parties] and [fields]" in refusal(StudyError, lambda: file.at("server"))
