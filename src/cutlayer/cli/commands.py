"""The frame around all commands: version, errors, help."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import CutlayerError
from .screen import complain

__all__ = ["STUDY", "app", "flowing"]

_HELP = """
Split learning: parties train one network together while raw records stay at home.

\b
See it work on real data:
    cutlayer demo --out demo

\b
Say in a file what is trained; see what would cross between the parties; train:
    cutlayer describe study.toml
    cutlayer simulate study.toml

\b
See what attacks get of it, with and without defences:
    cutlayer audit study.toml --try nopeek:0.5

\b
See how it compares with federated averaging and large-batch SGD:
    cutlayer compare study.toml --with fedavg,large-batch

\b
Between organisations: rehearse it here, then host it and join it:
    cutlayer local study.toml
    cutlayer serve study.toml
    cutlayer join study.toml --as hospital-a --data ./records

\b
Find out where a network can be cut:
    cutlayer cuts resnet18
    cutlayer cuts model.py:network --input 3,32,32

\b
Know what each cut would cost and leak, beside federated averaging, and which is best within limits:
    cutlayer plan vgg16 --clients 100 --epochs 5 --link 20 --max-client-bytes 1e9
    cutlayer plan --paper health-tables
"""

STUDY = typer.Argument(help="The study file; docs/study-file.md says what it holds.", metavar="STUDY.TOML")


class _Commands(TyperGroup):
    """Commands whose expected errors, and those of files, are short messages, not tracebacks."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` wherever it stands."""
        return super().parse_args(ctx, sorted(args, key=lambda word: word != "--debug"))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CutlayerError as error:
            if ctx.params.get("debug"):
                raise
            complain(str(error))
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None or ctx.params.get("debug"):
                raise
            complain(f"{error.filename} cannot be used: {error.strerror}; choose another file or folder")
            raise typer.Exit(1) from None


def flowing(text: str) -> str:
    """Return a docstring whose paragraphs fill a terminal of any width; those that begin with a mark stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else p.replace("\n", " ") for p in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"cutlayer {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="cutlayer",
    cls=_Commands,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not only its message.")
    ] = False,
) -> None: ...
