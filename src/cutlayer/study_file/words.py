"""What all tables of a study file share: exact types, no unknown keys, words for what was expected."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..errors import nearest

__all__ = [
    "LOSSES",
    "Call",
    "LossWord",
    "Metric",
    "Model",
    "Name",
    "Positive",
    "Split",
    "Table",
    "contradiction",
    "expects",
]

LOSSES = {
    "bce": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss",
    "huber": "HuberLoss",
    "l1": "L1Loss",
    "mse": "MSELoss",
    "nll": "NLLLoss",
    "smooth_l1": "SmoothL1Loss",
}
"""Losses by name: the class in ``torch.nn``."""


def contradiction(what: str, todo: str = "") -> PydanticCustomError:
    """Return the error of keys that are fine one by one but not together."""
    return PydanticCustomError("contradiction", "{what}", {"what": what, "todo": todo})


def expects(words: str) -> WrapValidator:
    """Say in ``words`` what was expected, whatever part of a type did not match."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("expected", "{words}", {"words": words}) from None

    return WrapValidator(check)


def _loss_word(word: str) -> str:
    if word not in LOSSES and ":" not in word:
        raise PydanticCustomError("unknown_word", "")
    return word


def _from_word(value: Any) -> Any:
    if isinstance(value, str):
        return {"function": value}
    if not isinstance(value, dict | Call):
        words = '"file.py:function", or { function = "file.py:function", arguments = { … } }'
        raise PydanticCustomError("expected", "{words}", {"words": words})
    return value


class Table(BaseModel):
    """Base of all tables: exact types, no unknown keys, never changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        known = list(cls.model_fields)
        if isinstance(given, dict) and cls.model_config["extra"] == "forbid":
            for key in given:
                if key not in known:
                    raise PydanticCustomError("unknown_key", "", {"key": key, "todo": nearest(key, known)})
        return given


Positive = Annotated[int, Field(ge=1)]
Split = Literal["train", "valid", "test"]
Metric = Literal["loss", "accuracy", "auc", "f1", "mae", "rmse", "r2"]
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]
LossWord = Annotated[str, AfterValidator(_loss_word)]


class Call(Table):
    """What makes a module: ``file.py:function`` or a network's name; a word alone is the function.

    Attributes:
        function: Which function.
        arguments: Its keyword arguments.
    """

    function: str
    arguments: dict[str, Any] = Field(default_factory=dict)


Model = Annotated[Call, BeforeValidator(_from_word)]
