"""Functions of the user's own files make models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cutlayer.errors import StudyError
from cutlayer.study_file.functions import Functions
from cutlayer.study_file.words import Call

Write = Callable[..., Path]


@pytest.fixture
def functions(tmp_path: Path, write: Write) -> Functions:
    write("chain")
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
