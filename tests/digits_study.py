"""A study file on digits, as small as a study can be, of which several tests begin with a variant."""

from __future__ import annotations

_TEXT = """
[study]
{study}

[graph]
topology = "vanilla"
model = {model}
cut = "activation1"

[data]
source = "digits"

[data.rows]
parties = 2

[optimizer]
name = "SGD"
lr = 0.1
"""


def mlp(hidden: int) -> str:
    """Return a network with so many hidden units, as a study file names it."""
    return f'{{ function = "mlp", arguments = {{ sizes = [64, {hidden}, 10] }} }}'


def digits_study(study: str, model: str) -> str:
    """Return a study file of two clients and a server.

    Args:
        study: The lines of its table ``[study]``.
        model: Its model, as a value of TOML.
    """
    return _TEXT.format(study=study, model=model)
