"""WHO holds which rows and columns: sources, how they are dealt to parties, alignment by id.

Data come from a :class:`Source` (``npz``, ``arrays``, ``csv``, ``parquet``, ``frame``, ``images``,
``dataset`` or one of the known ones) and are dealt by rows, by columns or both, which gives
:class:`Holdings`. Real parties build their own :class:`Records` and use :meth:`Holdings.of`.

>>> digits().split_rows(3, by="dirichlet", alpha=0.5).roles
{'client': ('client-0', 'client-1', 'client-2')}
"""

from cutlayer.data.align import common_ids
from cutlayer.data.array_sources import arrays, npz
from cutlayer.data.columns import Selection
from cutlayer.data.deal import Deal
from cutlayer.data.few_labels import hide_labels
from cutlayer.data.image_sources import dataset, images
from cutlayer.data.known import NHANES_INSTITUTIONS, breast_cancer, digits, mnist5k, nhanes
from cutlayer.data.lazy import FieldSpec, LazyField
from cutlayer.data.prepare import Preparation, PreparationSettings
from cutlayer.data.records import SPLITS, Holdings, PartyData, Records
from cutlayer.data.source import Source
from cutlayer.data.table_sources import csv, frame, parquet

__all__ = [
    "NHANES_INSTITUTIONS",
    "SPLITS",
    "Deal",
    "FieldSpec",
    "Holdings",
    "LazyField",
    "PartyData",
    "Preparation",
    "PreparationSettings",
    "Records",
    "Selection",
    "Source",
    "arrays",
    "breast_cancer",
    "common_ids",
    "csv",
    "dataset",
    "digits",
    "frame",
    "hide_labels",
    "images",
    "mnist5k",
    "nhanes",
    "npz",
    "parquet",
]
