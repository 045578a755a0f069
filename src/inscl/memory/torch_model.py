"""A sentence encoder in sentence-transformers: any model there is, on a GPU too; seconds to load."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inscl.errors import require


class TorchModel:
    """Texts to sentence vectors.

    Parameters
    ----------
    model : str
        Hub id or folder.
    batch_size : int
        Texts computed together.
    device : str, optional
        None takes a GPU where there is one.

    Raises
    ------
    InsclError
        If sentence-transformers is not installed.
    OSError, ValueError
        If there is no such model.
    """

    def __init__(self, model: str, batch_size: int = 32, device: str | None = None) -> None:
        # The progress bars of the libraries underneath would interleave with ours.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        library: Any = require("sentence_transformers", extra="encoders", purpose=f"The encoder '{model}'")
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._model = library.SentenceTransformer(model, device=device, trust_remote_code=False)
        self._batch_size = batch_size

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts, (n, d)."""
        vectors = self._model.encode(list(texts), batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads."""
        limit = self._model.get_max_seq_length() or 10**9
        lengths = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return [len(ids) > limit for ids in lengths]
