"""The pieces of a cut network, trained beside the uncut one: the same bits are wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cutlayer.graph.cutting import Pieces


def train_whole(model: nn.Module, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for step, rows in enumerate(batches):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(*rows).square().mean().backward()
        optimizer.step()
    return dict(model.state_dict())


def train_pieces(pieces: Pieces, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Train with one optimizer per piece; what crosses is copied, as a wire would."""
    optimizers = [
        torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        for parameters in ([*p.module.parameters()] for p in pieces.pieces)
        if parameters
    ]
    for step, rows in enumerate(batches):
        torch.manual_seed(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        one_step(pieces, rows)
        for optimizer in optimizers:
            optimizer.step()
    state: dict[str, Tensor] = {}
    for piece, names in zip(pieces.pieces, pieces.parameter_names(), strict=True):
        state.update({names[key]: value for key, value in piece.module.state_dict().items()})
    return state


def one_step(pieces: Pieces, rows: tuple[Tensor, ...]) -> None:
    sent: dict[str, Tensor] = dict(zip(pieces.inputs, rows, strict=True))
    got: list[list[Tensor]] = []
    for piece in pieces.pieces:
        values = []
        for name in piece.inputs:
            tensor = sent[name]
            if name not in pieces.inputs:
                tensor = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
                tensor.requires_grad_(tensor.is_floating_point())
            values.append(tensor)
        out = piece.module.train()(*values)
        sent.update(zip(piece.outputs, out if isinstance(out, tuple) else (out,), strict=True))
        got.append(values)
    (result,) = pieces.results
    back: dict[str, Tensor] = {}
    guess = sent[result].detach().requires_grad_()
    guess.square().mean().backward()
    assert guess.grad is not None
    back[result] = guess.grad
    for piece, values in zip(reversed(pieces.pieces), reversed(got), strict=True):
        wanted = [n for n in piece.outputs if n in back and sent[n].requires_grad]
        torch.autograd.backward([sent[n] for n in wanted], [back[n] for n in wanted])
        for name, value in zip(piece.inputs, values, strict=True):
            if value.grad is not None:
                back[name] = back[name] + value.grad if name in back else value.grad


def check_training(model: nn.Module, pieces: Pieces, make: Callable[[int], tuple[Tensor, ...]]) -> None:
    """The uncut model and the pieces, three steps of different sizes: all weights and buffers are equal."""
    batches = [make(rows) for rows in (5, 2, 3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = train_pieces(pieces, batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    whole = train_whole(model, batches)
    assert set(split) == {name for name in whole if name in split}
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained <= set(split)
    for name, value in split.items():
        assert torch.equal(value, whole[name]), name


def pixels(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda rows: (torch.randn(rows, *shape, generator=torch.Generator().manual_seed(rows)),)


def tokens(vocab: int, length: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda rows: (torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(rows)),)


IMAGE = pixels(3, 32, 32)
SMALL = pixels(3, 16, 16)
