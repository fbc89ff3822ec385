"""Parties that put off the gradients of weights, as they do where the others compute on other machines."""

import pytest

from cutlayer.runtime import compute, training
from cutlayer.runtime.party import Circumstances


def weights_put_off(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have every party put off what nobody waits for; return what was put off, None where it could not be."""
    real, put_off = compute.inputs_first, []

    def counted(*arguments):
        put_off.append(real(*arguments))
        return put_off[-1]

    monkeypatch.setattr(compute, "_WORTH_FLOPS", -1)
    monkeypatch.setattr(compute, "inputs_first", counted)
    monkeypatch.setattr(training, "Circumstances", lambda **more: Circumstances(**more | {"apart": True}))
    return put_off
