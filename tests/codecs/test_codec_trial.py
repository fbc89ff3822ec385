"""Every codec passes the trial, also one of somebody's own; each check notices a codec that misbehaves."""

from dataclasses import dataclass

import pytest
import torch

import cutlayer as cl
from cutlayer.codecs import Cast, Circular, Codec, Integer, Part, TopK, Written, codec_of, conformance
from cutlayer.errors import NumericsError, StudyError

WORDS = (
    "exact", "float16", "bfloat16", "float8", "float8:e5m2", "int8", "int8:channel", "int4:row", "int4", "topk:0.4",
    "random-topk:0.3,0.5", "pq:2,3", "pq:5,200", "c3:2", "c3:8", "topk:0.2+feedback",
    "topk:0.4,bfloat16", "random-topk:0.3,0.5,bfloat16",
)  # fmt: skip


def check_all(codec):
    for check in conformance.CHECKS:
        check(codec)


@pytest.mark.parametrize("word", WORDS)
def test_ours(word):
    check_all(codec_of(word))


def test_somebodys_own_passes_and_trains():
    check_all(Halved())
    people = cl.data.digits().split_rows(2)
    graph = cl.vanilla(cl.networks.mlp((64, 16, 10)), "activation1", clients=people, codecs=Halved())
    assert "written as halved; gradient back from server to client, written as halved" in graph.describe()
    one = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.5), epochs=2)
    run = one.simulate(people)
    assert run.metrics("test")["accuracy"] > 0.5 and run.equals(one.simulate(people))
    with pytest.raises(StudyError, match="no codec is named 'halved'"):
        graph.with_codecs("halved")


@dataclass(frozen=True, kw_only=True)
class Halved(Codec):
    """Every second value of a row, for it and the one after it."""

    word = "halved"
    promise = "every second value is that of the one before"

    def misfit(self, like):
        return "its rows are of odd length" if like.width % 2 else ""

    def parts(self, like):
        return (Part("half", like.dtype, (like.rows, like.width // 2)),)

    def write(self, tensor, moment):
        if not tensor.isfinite().all():
            raise NumericsError("a value is no number")
        return Written((tensor.reshape(len(tensor), -1)[:, ::2],))

    def read(self, parts, like, moment):
        return Written((parts[0].repeat_interleave(2, 1).reshape(like.shape),))


class Wordless(Integer):
    word = " "


class Silent(Cast):
    def parts(self, like):
        return (Part("values", torch.float16, like.shape), Part("more", torch.float16, ()))


class Rowless(Integer):
    def parts(self, like):
        return super().parts(like)[::-1]


class Forgetful(Cast):
    def read(self, parts, like, moment):
        return Written((parts[0],))


class Gambler(Cast):
    def write(self, tensor, moment):
        return Written((tensor.half() + torch.rand(()).half(),))


class Vandal(Cast):
    def write(self, tensor, moment):
        return Written((tensor.zero_().half(),))


class Blind(Cast):
    def write(self, tensor, moment):
        return Written((tensor.nan_to_num(0.0, 0.0, 0.0).half(),))


class Trusting(TopK):
    def read(self, parts, like, moment):
        return Written((torch.zeros((*like.shape[:1], int(parts[1].max())), dtype=like.dtype),))


class Unfolding(Circular):
    def unfold(self, folded, trace, like, moment):
        return folded


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        (Wordless(), "its word or its promise is empty"),
        (Silent(dtype="float16"), "it wrote 1 parts and said 2"),
        (Rowless(), "its first part does not say how many rows there are"),
        (Forgetful(dtype="float16"), "came back as"),
        (Gambler(dtype="float16"), "it drew from PyTorch's own random numbers"),
        (Vandal(dtype="float16"), "it changed what it was given|written in two ways"),
        (Blind(dtype="float16"), "was given, and numbers arrived"),
        (Trusting(share=0.5), "came back as|was read as"),
        (Unfolding(), "a gradient is unfolded to another shape"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Codec) else "",
)
def test_each_check_notices_one_that_misbehaves(codec, why):
    with pytest.raises(AssertionError, match=why):
        check_all(codec)
