"""Model code is executed only once it was approved; with its own digest given, no other is executed at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cutlayer.cli.consent import agreed, code_of
from cutlayer.errors import ConsentError
from cutlayer.sessions.approval import Approvals, code_digest
from cutlayer.study_file import load_study

STUDY = """
[graph]
topology = "vanilla"
model = "model.py:network"
cut = "1"

[data]
source = "digits"

[data.rows]
parties = 2

[optimizer]
name = "SGD"
lr = 0.1

[network]
"""
MODEL = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("executed").touch()

def network(input_shape):
    return nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
"""


class Party:
    """One party's folder, and what it is asked there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "study.toml").write_text(STUDY)
        (folder / "model.py").write_text(MODEL)

    def agrees(self, *approve: str) -> str:
        file = load_study(self.folder / "study.toml")
        approvals = Approvals(self.folder / "run")
        return agreed(file, approve, approvals, lambda: file.at("client-0"), ["cutlayer", "join"])[1]

    @property
    def code(self) -> str:
        return code_digest(code_of(load_study(self.folder / "study.toml")))

    @property
    def digest(self) -> str:
        found = load_study(self.folder / "study.toml").at("client-0").study.digest
        (self.folder / "executed").unlink()
        return found

    @property
    def executed(self) -> bool:
        return (self.folder / "executed").exists()


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path)


def test_both_digests_approve_at_once(party: Party):
    study = party.digest
    for words in ((party.code, study), (study, party.code[:32])):
        assert party.agrees(*words).startswith(f"approved by --approve: digest {study[:16]}")
    assert party.agrees().startswith("approved on ")


def test_with_both_digests_other_code_is_not_executed(party: Party):
    words = (party.code, party.digest)
    (party.folder / "model.py").write_text(MODEL + "\nprint('other')\n")
    with pytest.raises(
        ConsentError, match=r"model code here is not the one that you approve: nothing was executed"
    ):
        party.agrees(*words)
    assert not party.executed and not (party.folder / "run").exists()


def test_code_that_was_approved_before_is_not_executed_in_the_place_of_the_one_given(party: Party):
    other, study = "0" * 64, party.digest
    party.agrees(party.code, study)
    (party.folder / "executed").unlink()
    with pytest.raises(ConsentError, match="nothing was executed"):
        party.agrees(other, study)
    assert not party.executed


def test_the_right_code_of_another_study_is_executed_and_the_study_refused(party: Party):
    with pytest.raises(ConsentError, match="not the one that you approve"):
        party.agrees(party.code, "0" * 64)
    assert party.executed


def test_what_to_approve_names_both(party: Party):
    code, study = party.code, party.digest
    with pytest.raises(ConsentError, match="nobody has approved the model code yet"):
        party.agrees()
    assert not party.executed
    with pytest.raises(ConsentError) as asked:
        party.agrees(code)
    assert str(asked.value).endswith(f"cutlayer join --approve {code} --approve {study}")


@pytest.mark.parametrize("words", [("",), ("0" * 31,), ("0" * 64, "ABCDEF" * 6)])
def test_words_that_are_no_digests(party: Party, words: tuple[str, ...]):
    with pytest.raises(ConsentError, match="that is no digest to approve"):
        party.agrees(*words)
    assert not party.executed
