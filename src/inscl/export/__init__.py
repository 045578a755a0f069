"""Mixtures for trainers: a `datasets.Dataset`, or files that trainers read, with the settings that use them."""

from inscl.data.records import Shape, to_dataset
from inscl.export.files import Written, write_file
from inscl.export.tokens import SpecialTokens
from inscl.export.trainers import MIXTURE_FORMATS

__all__ = ["MIXTURE_FORMATS", "Shape", "SpecialTokens", "Written", "to_dataset", "write_file"]
