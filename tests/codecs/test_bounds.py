"""Every codec keeps the promise of its docstring, whatever is written."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutlayer.codecs import Like, Moment, check_parts, codec_of, full_word, written_bytes
from cutlayer.errors import NumericsError

WORDS = (
    "exact", "float16", "bfloat16", "float8", "float8:e5m2", "int8", "int8:channel", "int8:row", "int4", "int4:row",
    "int4:channel", "topk:0.1", "topk:1", "random-topk:0.3,0.5", "pq:3,2", "pq:4,17", "pq:1,256", "c3:1", "c3:4",
)  # fmt: skip
MOMENT = Moment(7, 120, True)
FLOAT32_STEP = 2.0**-22


def tensors(largest, *, rows=5):
    """Batches [B, ...] with values up to ``largest``."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=4, max_side=rows)
    values = st.one_of(
        st.floats(-largest, largest, width=32), st.floats(-1, 1, width=32), st.sampled_from([0.0, -0.0, 1.0])
    )
    return hnp.arrays(np.float32, shapes, elements=values).map(torch.from_numpy)


def through(codec, tensor, moment=MOMENT):
    """Return what arrives of ``tensor``, checked to be of the shape and bytes that the codec says."""
    like = Like(tuple(tensor.shape), tensor.dtype)
    parts = codec.write(tensor, moment).parts
    check_parts(codec, parts, like)
    assert sum(part.nbytes for part in parts) == written_bytes(codec, like)
    (read,) = codec.read(parts, like, moment).parts
    assert read.shape == tensor.shape and read.dtype is tensor.dtype
    return read


@pytest.mark.parametrize("word", WORDS)
@settings(max_examples=12, deadline=None)
@given(tensor=tensors(1e3))
def test_the_same_is_written_again_and_what_is_given_stays_as_it_is(word, tensor):
    codec = codec_of(word)
    if codec.misfit(Like(tuple(tensor.shape), tensor.dtype)):
        return
    before = tensor.clone()
    state = torch.get_rng_state()
    first, again = codec.write(tensor, MOMENT), codec.write(tensor, MOMENT)
    assert all(torch.equal(a, b) for a, b in zip(first.parts, again.parts, strict=True))
    assert torch.equal(tensor, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert codec_of(full_word(codec)) == codec


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_types_come_back_as_they_were(word, dtype):
    codec, tensor = codec_of(word), torch.linspace(-2, 3, 48).reshape(4, 3, 4).to(dtype)
    read = through(codec, tensor)
    rough = {"c3:": 20.0, "pq:": 6.0, "top": 3.0, "ran": 3.0}.get(word[:3], 0.4)
    assert (read - tensor).abs().max() <= rough


@settings(max_examples=80, deadline=None)
@given(tensor=tensors(2.0**100))
def test_exact(tensor):
    assert through(codec_of("exact"), tensor) is tensor


@settings(max_examples=80, deadline=None)
@given(tensor=tensors(65504.0))
def test_float16(tensor):
    error = (through(codec_of("float16"), tensor) - tensor).abs()
    assert (error <= torch.maximum(tensor.abs() / 2048, torch.tensor(2.0**-25))).all()


@settings(max_examples=80, deadline=None)
@given(tensor=tensors(2.0**127))
def test_bfloat16(tensor):
    error = (through(codec_of("bfloat16"), tensor) - tensor).abs()
    assert (error <= tensor.abs() / 256 + 1e-38).all()


@pytest.mark.parametrize(
    ("word", "relative", "floor"), [("float8:e4m3", 16, 448 * 2**10), ("float8:e5m2", 8, 57344 * 2**17)]
)
@settings(max_examples=80, deadline=None)
@given(tensor=tensors(2.0**100))
def test_float8(word, relative, floor, tensor):
    error = (through(codec_of(word), tensor) - tensor).abs()
    bound = torch.maximum(tensor.abs() / relative, tensor.abs().max() / floor)
    assert (error <= bound * (1 + FLOAT32_STEP) + 1e-34).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@settings(max_examples=60, deadline=None)
@given(tensor=tensors(2.0**100))
def test_integers(bits, per, tensor):
    read = through(codec_of(f"int{bits}:{per}"), tensor)
    others = [d for d in range(tensor.ndim) if d != {"channel": 1, "row": 0}.get(per)]
    span = tensor.amax(others, keepdim=True).clamp(min=0) - tensor.amin(others, keepdim=True).clamp(max=0)
    bound = span / {8: 508, 4: 28}[bits]
    assert ((read - tensor).abs() <= bound * (1 + 600 * FLOAT32_STEP) + 1e-34).all()
    assert (read[tensor == 0] == 0).all()


@settings(max_examples=80, deadline=None)
@given(tensor=tensors(2.0**50), share=st.floats(0.01, 1.0))
def test_top_k(tensor, share):
    codec = codec_of(f"topk:{share}")
    flat, read = tensor.flatten(1), through(codec, tensor).flatten(1)
    kept = codec.count(Like(tuple(tensor.shape), tensor.dtype))
    assert (read != 0).sum(1).max() <= kept
    assert torch.equal(read[read != 0], flat[read != 0])
    squares = flat.double().square().sum(1)
    left = (flat - read).double().square().sum(1)
    assert (left <= squares * (1 - kept / flat.shape[1]) * (1 + 1e-9)).all()
    smallest = flat.abs().sort(1, descending=True).values[:, kept - 1]
    assert ((flat - read).abs() <= smallest[:, None]).all()


@settings(max_examples=60, deadline=None)
@given(tensor=tensors(1e3), share=st.floats(0.01, 1.0))
def test_top_k_with_short_values(tensor, share):
    exact, short = (through(codec_of(f"topk:{share},{values}"), tensor) for values in ("exact", "bfloat16"))
    assert ((exact - short).abs() <= exact.abs() / 256 + 1e-38).all()
    like = Like.of(tensor)
    count = codec_of(f"topk:{share}").count(like)
    fewer = written_bytes(codec_of(f"topk:{share}"), like) - written_bytes(
        codec_of(f"topk:{share},bfloat16"), like
    )
    assert fewer == 2 * count * like.rows


@settings(max_examples=60, deadline=None)
@given(tensor=tensors(1e3), share=st.floats(0.01, 1.0), explore=st.floats(0.0, 0.99))
def test_randomised_top_k_keeps_as_many_and_in_an_evaluation_the_largest(tensor, share, explore):
    codec, plain = codec_of(f"random-topk:{share},{explore}"), codec_of(f"topk:{share}")
    like = Like(tuple(tensor.shape), tensor.dtype)
    written = codec.write(tensor, MOMENT)
    places = written.trace
    assert places.shape == (like.rows, codec.count(like))
    assert ((places >= 0) & (places < like.width)).all() and (places[:, 1:] > places[:, :-1]).all()
    assert torch.equal(written.parts[0], tensor.flatten(1).gather(1, places))
    calm = Moment(7, 120, False)
    assert torch.equal(through(codec, tensor, calm), through(plain, tensor, calm))


def test_randomised_top_k_keeps_each_place_as_often_as_it_says():
    codec = codec_of("random-topk:0.2,explore=0.25")  # 4 of 20
    rows, draws = 200, 100
    tensor = torch.arange(20, 0, -1).float().expand(rows, 20)
    kept = torch.zeros(20)
    for step in range(draws):
        kept += codec.write(tensor, Moment(1, step, True)).trace.reshape(-1).bincount(minlength=20)
    often = kept / (rows * draws)
    expected = torch.tensor([0.75] * 4 + [0.25 * 4 / 16] * 16)
    assert (often - expected).abs().max() < 5 * (0.25 / (rows * draws)) ** 0.5
    other = codec.write(tensor, Moment(1, 5, True)).trace
    assert not torch.equal(codec.write(tensor, Moment(1, 6, True)).trace, other)


@settings(max_examples=80, deadline=None)
@given(tensor=tensors(1e6), width=st.integers(1, 5), centroids=st.integers(2, 40))
def test_product_quantisation(tensor, width, centroids):
    codec = codec_of(f"pq:{width},{centroids}")
    flat = tensor.flatten(1)
    spare = -flat.shape[1] % width
    pieces, read = (
        torch.nn.functional.pad(t.flatten(1), (0, spare)).reshape(-1, width).double()
        for t in (tensor, through(codec, tensor))
    )
    error = (pieces - read).norm(dim=1)
    assert (error <= pieces.norm(dim=1) * (1 + 1e-3)).all()
    codebook = torch.cat([torch.zeros(1, width), codec.write(tensor, MOMENT).parts[1]]).double()
    nearest = torch.cdist(pieces, codebook).min(1).values
    assert (error <= nearest + 1e-3 * pieces.norm(dim=1) + 1e-18).all()  # squares of less vanish


def test_product_quantisation_finds_pieces_that_are_there():
    few = torch.tensor([[0.0, 0.0], [5.0, 1.0], [-3.0, 2.0], [1.0, -4.0]])
    tensor = few[torch.randint(4, (32, 10), generator=torch.Generator().manual_seed(0))].reshape(32, 20)
    assert torch.allclose(through(codec_of("pq:2,16"), tensor), tensor)
    far = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    errors = [(through(codec_of(f"pq:2,{n}"), far) - far).square().sum() for n in (2, 8, 32, 128)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * far.square().sum()


@settings(max_examples=60, deadline=None)
@given(tensor=tensors(1e3), rows=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 2**62))
def test_the_gradient_through_circular_sums_is_that_of_the_sums(tensor, rows, seed):
    """The two ways of a gradient are the transposes of the two ways of an activation."""
    codec, moment = codec_of(f"c3:{rows}"), Moment(seed, 3, True)
    like = Like(tuple(tensor.shape), tensor.dtype)
    if codec.misfit(like):
        return
    draw = torch.Generator().manual_seed(seed)
    gradient = torch.randn(tensor.shape, generator=draw)
    written, read = codec.write(tensor, moment).parts[1], through(codec, tensor, moment)
    folded = codec.fold(gradient, None, moment)
    scale = 1e-4 * (1 + tensor.norm() * gradient.norm())
    assert abs((read * gradient).sum() - (written * folded).sum()) <= scale
    unfolded = codec.unfold(folded, None, like, moment)
    assert abs((unfolded * tensor).sum() - (written * folded).sum()) <= scale


def test_the_error_of_circular_sums_is_as_expected():
    draw = torch.Generator().manual_seed(0)
    tensor = torch.randn(8, 31, generator=draw) * torch.arange(1, 9)[:, None]
    mean, squares = torch.zeros_like(tensor), torch.zeros(8)
    for seed in range(400):
        read = through(codec_of("c3:4"), tensor, Moment(seed, 0, True))
        mean += read / 400
        squares += (read - tensor).square().sum(1) / 400
    lengths = tensor.square().sum(1).reshape(2, 4)
    expected = (lengths.sum(1, keepdim=True) - lengths).reshape(8)
    assert torch.allclose(squares, expected, rtol=0.1)
    assert ((mean - tensor).square().sum(1) < 4 * expected / 400 * 31**0.5).all()
    assert torch.allclose(through(codec_of("c3:1"), tensor), tensor, atol=1e-4)
    alone = through(codec_of("c3:8"), tensor[:1])
    assert torch.allclose(alone, tensor[:1], atol=1e-4)


@pytest.mark.parametrize("word", [w for w in WORDS if w not in ("exact", "bfloat16")])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_holds_nan_or_infinity_is_refused_where_it_is_written(word, bad):
    tensor = torch.randn(4, 2, 8)
    tensor[2, 1, 3] = bad
    with pytest.raises(NumericsError, match=rf"cannot write.*choose codec|{word}"):
        codec_of(word).write(tensor, MOMENT)


@pytest.mark.parametrize("word", WORDS)
def test_no_rows_and_large_indices(word):
    codec = codec_of(word)
    for width in (256, 257, 65536, 65537):  # places in 8, 16 and 32 bits
        tensor = torch.zeros(2, width)
        tensor[:, -1] = 3.0
        read = through(codec, tensor, Moment(1, 1, False))
        if not word.startswith(("c3", "pq")):
            assert (read - tensor).abs().max() <= 3 / 28
        if word == "topk:0.1":
            assert torch.equal(read, tensor)
