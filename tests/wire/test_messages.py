"""Kinds and messages."""

import torch

import cutlayer.wire
from cutlayer.wire import Kind, Message


def test_the_numbers_of_kinds_never_change():
    assert {kind.name: kind.value for kind in Kind} == {
        "ACTIVATION": 1,
        "GRADIENT": 2,
        "LABEL": 3,
        "HANDOVER": 4,
        "STATISTICS": 5,
        "VERDICT": 6,
        "SEALED": 7,
    }


def test_a_message_is_of_training_unless_it_says_otherwise():
    message = Message(Kind.LABEL, "tail->server", 7, (("y", torch.zeros(2)),))
    assert message.training
    assert message.sequence == 0


def test_the_public_names_are_there():
    assert all(hasattr(cutlayer.wire, name) for name in cutlayer.wire.__all__)
