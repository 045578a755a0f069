"""Mixtures for trainers: a `datasets.Dataset`, or files that trainers read, with the settings that use them."""

from inscl.data.records import is_chat, to_dataset
from inscl.export.files import FORMATS, Written, write_file
from inscl.export.tokens import SpecialTokens, special_tokens

__all__ = ["FORMATS", "SpecialTokens", "Written", "is_chat", "special_tokens", "to_dataset", "write_file"]
