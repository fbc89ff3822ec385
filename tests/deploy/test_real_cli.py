"""The helper that holds files against the command line does notice what is wrong."""

import pytest
from real_cli import UsageError, understood


def test_a_command_is_understood():
    found = understood(["join", "study.toml", "--as", "hospital-a", "--approve", "0123456789abcdef"])
    assert found["party"] == "hospital-a" and found["approve"] == ["0123456789abcdef"]


@pytest.mark.parametrize(
    "words",
    [
        "joins study.toml --as a",
        "join study.toml",
        "join study.toml --as a --date here",
        "serve study.toml more",
        "keys isue a",
        "serve study.toml --threads many",
    ],
)
def test_what_the_command_line_would_refuse_is_refused(words: str):
    with pytest.raises(UsageError):
        understood(words.split())
