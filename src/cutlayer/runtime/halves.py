"""Each party's own half of the network on disk, as safetensors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import StudyError
from ..graph.split_graph import SplitGraph

__all__ = ["load_half", "save_half", "save_joined"]


def save_half(
    folder: Path, graph: SplitGraph, party: str, segments: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a party's segments to ``folder/<segment>.safetensors``, with the names the uncut model uses noted."""
    for name, weights in segments.items():
        metadata = {"segment": name, "party": party, "configuration": graph.name, "graph": graph.digest}
        _write(folder / f"{name}.safetensors", weights, metadata)


def load_half(folder: Path, graph: SplitGraph, party: str, segment: str) -> dict[str, Tensor]:
    """Return the weights of ``segment`` that ``party`` saved.

    Raises:
        StudyError: The file is missing, damaged, or belongs to another graph.
    """
    path = folder / f"{segment}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("graph") != graph.digest:
                raise StudyError(
                    f"{path} belongs to another graph",
                    party=party,
                    got=f"digest {metadata.get('graph', 'none')[:16]}",
                    expected=graph.digest[:16],
                    todo="load it with the graph it was saved from",
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StudyError(
            f"cannot read {path}: {error}", party=party, todo="check the folder given to save()"
        ) from error


def save_joined(path: Path, graph: SplitGraph, weights: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Write all segments as one file: by the uncut model's own names where it was cut, else ``segment.name``."""
    joined: dict[str, Tensor] = {}
    for segment, state in weights.items():
        origin = graph.segments[segment].origin
        joined.update({origin.get(name, f"{segment}.{name}"): tensor for name, tensor in state.items()})
    _write(path, joined, {"configuration": graph.name, "graph": graph.digest})
    return path


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside, then put in place, so that a full disk leaves what was there."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: t.detach().cpu().clone() for name, t in tensors.items()}, new, metadata=metadata)
        new.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise StudyError(
            f"cannot write {path}: {error}", todo="make room on the disk, or choose another folder"
        ) from error
