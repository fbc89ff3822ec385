"""``cutlayer cuts``: where a model can be cut, and what would cross there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StudyError
from .screen import console

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from ..graph.candidates import Candidate

__all__ = ["cuts"]

SHAPES = {
    "lenet": "1,28,28", "mlp": "784", "resnet18": "3,32,32", "resnet50": "3,32,32", "unet": "1,32,32",
    "vgg11": "3,32,32", "vgg16": "3,32,32",
}  # fmt: skip
TOKENS = {"transformer": 64}
_ROWS = 2


def cuts(
    model: Annotated[
        str,
        typer.Argument(
            help="file.py:function, a network such as vgg16, or a study.toml with one model.", metavar="MODEL"
        ),
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one sample.", metavar="3,32,32")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Length of one sample of token ids, instead.", metavar="64")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An argument of the function.", metavar="NAME=VALUE")
    ] = None,
) -> None:
    """List the places at which a model can be cut, with what would cross there and what the client would do.

    \b
    cutlayer cuts resnet18
    cutlayer cuts vgg16 --set classes=100 --set batch_norm=true
    cutlayer cuts model.py:network --input 3,224,224
    cutlayer cuts study.toml
    """  # noqa: D301
    from ..graph.candidates import candidates

    network, example = (
        _from_study(model, shape, tokens)
        if model.endswith(".toml")
        else _made(model, shape, tokens, settings or [])
    )
    screen = console()
    screen.print(_table(model, network, candidates(network, example)))
    screen.print('Take one as [bold]cut = "name"[/] in a study file, or cl.vanilla(model, cut="name").')


def _from_study(path: str, shape: str | None, tokens: int | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    from ..study_file import load_study

    if shape is not None or tokens is not None:
        raise StudyError("a study file's data say what the input is", todo="leave --input and --tokens out")
    return load_study(path).network()


def _made(
    word: str, shape: str | None, tokens: int | None, settings: list[str]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    from ..study_file.functions import Functions
    from ..study_file.words import Call

    if shape is None and tokens is None:
        shape, tokens = SHAPES.get(word), TOKENS.get(word)
    if shape is None and tokens is None:
        # An unknown name is told first; then what is missing.
        Functions(Path()).find(word)
        raise StudyError(
            f"the shape of the input of {word} is not known", todo="give --input 3,32,32 or --tokens 64"
        )
    if shape is not None and tokens is not None:
        raise StudyError("the input is either --input or --tokens, not both")
    sides = _sides(shape) if shape is not None else (tokens or 0,)
    arguments = dict(_setting(text) for text in settings)
    network = Functions(Path()).make(Call(function=word, arguments=arguments), input_shape=sides)
    return network, (_example(sides, whole=shape is None),)


def _sides(shape: str) -> tuple[int, ...]:
    try:
        sides = tuple(int(side) for side in shape.split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1:
        raise StudyError("--input is no shape", got=shape, expected="whole numbers with commas, like 3,32,32")
    return sides


def _setting(text: str) -> tuple[str, Any]:
    """Return name and value of ``name=value``; what is no number, truth value or list is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise StudyError("--set is no argument", got=text, expected="name=value, like classes=100")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _example(sides: tuple[int, ...], *, whole: bool) -> Tensor:
    """Return a few rows of noise, or of token ids 0 and 1, which any vocabulary has."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if whole:
        return torch.randint(0, 2, (_ROWS, *sides), generator=generator)
    return torch.randn((_ROWS, *sides), generator=generator)


def _table(word: str, network: nn.Module, found: list[Candidate]) -> Table:
    from rich.table import Table
    from rich.text import Text

    total = sum(parameter.numel() for parameter in network.parameters())
    table = Table(title=Text(f"Where {word} can be cut ({total:,} parameters)"), title_justify="left")
    table.add_column("cut after", overflow="fold")
    table.add_column("crosses, per sample", overflow="fold")
    for heading in ("bytes per sample", "client parameters", "client FLOPs"):
        table.add_column(heading, justify="right")
    table.add_column("works", overflow="fold")
    for one in found:
        crosses = "\n".join(f"{name} {list(shape)}" for name, shape in one.tensors.items())
        numbers = (f"{one.bytes_per_sample:,}", f"{one.parameters:,}", f"{one.flops_share:.1%}")
        if not one.tensors:
            numbers = ("", "", "")
        verdict = Text("yes", style="green") if one.works else Text(f"no: {one.reason}", style="dim")
        table.add_row(Text(one.name), Text(crosses), *numbers, verdict)
    return table
