"""``[codecs]`` of a study file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cutlayer.codecs import EXACT, Integer, TopK
from cutlayer.errors import CutlayerError
from cutlayer.graph.parts import Cut
from cutlayer.study_file import load_study

Write = Callable[..., Path]


def cut_of(path: Path) -> Cut:
    study, _ = load_study(path).build()
    return next(cut for cut in study.graph.cuts if cut.kind == "activation")


def test_a_table_by_cut_and_direction(write: Write) -> None:
    table = '[codecs]\n"head->server" = "topk:0.25"\n"head<-server" = "int8"\n\n[optimizer]'
    cut = cut_of(write("chain", ("[optimizer]", table)))
    assert (cut.codec, cut.return_codec) == (TopK(share=0.25), Integer())


def test_a_word_for_all(write: Write) -> None:
    cut = cut_of(write("chain", ("[study]", 'codecs = "int4:row"\n\n[study]')))
    assert (cut.codec, cut.return_codec) == (Integer(bits=4, per="row"),) * 2


def test_nothing_said_is_exact(write: Write) -> None:
    cut = cut_of(write("chain"))
    assert (cut.codec, cut.return_codec) == (EXACT, EXACT)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('[codecs]\n"head->server" = "int9"', "no codec is named 'int9' (study.toml, [codecs]); did you mean 'int8'?"),
        ('[codecs]\n"hed->server" = "int8"', "unknown cut 'hed->server' (study.toml, [codecs]); did you mean"),
        ('[codecs]\n"head->server" = 8', "study.toml, [codecs]: wrong value; got a table; expected a word such as"),
    ],
)  # fmt: skip
def test_what_cannot_be_names_file_and_table(table: str, why: str, write: Write) -> None:
    with pytest.raises(CutlayerError) as caught:
        load_study(write("chain", ("[optimizer]", f"{table}\n\n[optimizer]"))).build()
    assert why in str(caught.value)
