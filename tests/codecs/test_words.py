"""Codecs by a word, and what is said of words that name none."""

import dataclasses

import pytest

from cutlayer.codecs import (
    Cast,
    Circular,
    Float8,
    Integer,
    ProductQuantiser,
    RandomTopK,
    TopK,
    codec_of,
    full_word,
)
from cutlayer.errors import StudyError


@pytest.mark.parametrize(
    ("word", "codec"),
    [
        ("float16", Cast(dtype="float16")),
        ("float8", Float8(format="e4m3")),
        ("float8:e5m2", Float8(format="e5m2")),
        ("int8", Integer(bits=8, per="tensor")),
        ("int4:per=row", Integer(bits=4, per="row")),
        ("topk:0.1", TopK(share=0.1)),
        ("topk:1", TopK(share=1)),
        ("topk:0.1,bfloat16", TopK(share=0.1, values="bfloat16")),
        ("random-topk:0.1,values=bfloat16", RandomTopK(share=0.1, values="bfloat16")),
        ("random-topk:0.1,explore=0.2", RandomTopK(share=0.1, explore=0.2)),
        ("pq:8, 32", ProductQuantiser(width=8, centroids=32)),
        ("pq:correction=0.5", ProductQuantiser(correction=0.5)),
        ("c3:8", Circular(rows=8)),
        ("topk:0.05+feedback", TopK(share=0.05, feedback=True)),
    ],
)
def test_words(word, codec):
    assert codec_of(word) == codec
    assert codec_of(codec) is codec
    assert codec_of(full_word(codec)) == codec


def test_a_word_names_the_codec_with_all_that_it_is():
    share = 0.1 + 1e-9
    assert full_word(TopK(share=share)) != full_word(TopK(share=0.1))
    assert codec_of(full_word(TopK(share=share))).share == share


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("int9", "no codec is named 'int9'; did you mean 'int8'?"),
        ("top-k:0.1", "no codec is named 'top-k:0.1'; did you mean 'topk'?"),
        ("", "no codec is named ''; known: bfloat16, c3"),
        (
            "int8:chanel",
            "codec 'int8:chanel': no range is kept per 'chanel'; got 'chanel'; did you mean 'channel'?",
        ),
        ("int8:row,row", "codec 'int8:row,row': 'row' is no setting; expected per"),
        ("exact:1", "'1' is no setting; expected none: the word is all"),
        (
            "pq:widht=3",
            "'widht=3' is no setting; expected width, centroids, correction; did you mean 'width'?",
        ),
        ("topk", "codec 'topk' lacks its share; say for example 'topk:0.1'"),
        ("topk:0", "got 0; expected 0 < share <= 1"),
        ("topk:0.1,float16", "kept values cannot be written as 'float16'; did you mean 'bfloat16'?"),
        ("topk:nan", "got nan; expected 0 < share <= 1"),
        ("random-topk:0.1,1", "explore is a probability; got 1"),
        ("float8:e3m4", "float8 has no format 'e3m4'; did you mean"),
        ("pq:0", "a piece has at least one value; got width 0"),
        ("pq:4,300", "a codebook has 2 to 256 centroids; got 300"),
        ("pq:4,16,-1", "the correction is a number from 0; got -1"),
        ("c3:3", "c3 adds up rows in groups; got 3 rows; expected 1, 2, 4"),
        ("topk:0.1+feedbck", "'feedbck' can follow no codec; say for example 'topk:0.1.feedback'"),
        ("exact+feedback", "exact leaves nothing out"),
        (8, "a codec is chosen by a word; got int; expected e.g. 'int8'"),
    ],
)
def test_words_that_name_none(word, why):
    with pytest.raises(StudyError) as caught:
        codec_of(word)
    assert why.replace(".feedback", "+feedback") in str(caught.value)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        codec_of("int8").bits = 4
