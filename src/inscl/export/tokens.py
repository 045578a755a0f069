"""The tokens with which a model's texts begin and end, for trainers that add none themselves."""

from typing import NamedTuple

from inscl.errors import InsclError
from inscl.models.loading import load_tokenizer


class SpecialTokens(NamedTuple):
    """What stands before a prompt (often nothing) and after an answer, as text."""

    begin: str
    end: str

    @classmethod
    def of(cls, model: str) -> "SpecialTokens":
        """The special tokens that a model's tokenizer puts around a prompt and its answer.

        Parameters
        ----------
        model : str
            As for `inscl.models.loading.resolve`; only its tokenizer is read.

        Raises
        ------
        InsclError
            If there is no such model, or its tokenizer has no end-of-text token.
        """
        tokenizer = load_tokenizer(model)
        if tokenizer.eos_token is None:
            raise InsclError(f"The tokenizer of {model!r} has no end-of-text token, so answers would not end. Set one.")
        begins = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        return cls(tokenizer.bos_token if begins else "", tokenizer.eos_token)
