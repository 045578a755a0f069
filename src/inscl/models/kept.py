"""States above a frozen bottom, kept in a folder: computed once per row, shared by stages, streams and processes.

A row is known by its tokens, and states by the bottom that made them (see `inscl.models.parts.Bottom`), so
another model, template or length never meets these states. What stands to the right of a row changes nothing.

Files are written once and whole, and mapped into memory when they are read. Two processes that compute the same rows
at once write them twice, which costs space and nothing else; whatever is killed leaves no half file. The folder may
be deleted whenever nothing is at work in it: it is made again.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from inscl.errors import ConfigError
from inscl.files import whole_file
from inscl.models.parts import Bottom

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_logger = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_FILE_BYTES = 64 << 20  # computed before they are written: what a kill can cost
_BATCH_TOKENS, _BATCH_ROWS = 4096, 64
_MOST_BYTES = 64 << 30
_MANY_BYTES = 1 << 30  # from here on it is said how much is kept


@dataclass(frozen=True)
class Keeping:
    """Where states are kept, above how many layers, and in which precision.

    Attributes
    ----------
    folder : Path
    depth : int
        Frozen layers; 0 keeps nothing.
    states : {"auto", "off", "float32", "bfloat16", "float16"}
        "auto" keeps them as the model computes them, where that can be done; a precision demands it.
    """

    folder: Path
    depth: int = 0
    states: str = "auto"

    def of(
        self, model: "Weights", *, half: bool = False, answering: bool = False, why_not: str = ""
    ) -> "KeptStates | None":
        """The kept states of a model whose bottom is frozen; None where none are kept.

        Parameters
        ----------
        model : transformers.PreTrainedModel or peft.PeftModel
        half : bool
            Whether autocast computes it in bfloat16.
        answering : bool
            Whether the model answers only.
        why_not : str
            What else stands in the way; empty: nothing.

        Raises
        ------
        ConfigError
            If a precision is demanded and something stands in the way.
        """
        if not self.depth or self.states == "off":
            return None
        bottom = None if why_not else Bottom(model, self.depth, half, answering)
        if bottom and not bottom.problem:
            return KeptStates(self, bottom)
        self.give_up(bottom.problem if bottom else why_not)
        return None

    def give_up(self, why: str) -> None:
        """Say that nothing is kept: an error where it is demanded."""
        if self.states != "auto":
            raise ConfigError(f"`kept` is {self.states}, but {why}. Set it to auto or off.")
        _logger.info("the frozen layers are computed at every step, since %s", why)


class KeptStates:
    """States of rows above one bottom.

    Parameters
    ----------
    keeping : Keeping
    bottom : Bottom
        Without a `problem`.
    """

    def __init__(self, keeping: Keeping, bottom: Bottom) -> None:
        self.bottom, self._keeping = bottom, keeping
        self._dtype: torch.dtype = bottom.dtype if keeping.states == "auto" else getattr(torch, keeping.states)
        self._folder = keeping.folder / f"{bottom.digest.hex()}-{str(self._dtype).removeprefix('torch.')}"
        self._files: set[str] = set()
        self._known: dict[bytes, torch.Tensor] = {}

    def keep(self, rows: Iterable[Sequence[int]]) -> bool:
        """Compute what is not kept yet of rows given as tokens; whether now all of them are.

        Raises
        ------
        ConfigError
            If there is no room for it where keeping is demanded.
        """
        self._look()
        missing = {key: row for row in rows if (key := _key(row)) not in self._known}
        if not missing:
            return True
        size = sum(map(len, missing.values())) * self.bottom.width * self._dtype.itemsize
        if problem := self._no_room(size):
            self._keeping.give_up(problem)
            return False
        for part in self._parts(missing):
            self._write(part)
        self._look()
        return True

    def padded(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """States of kept rows, (n_rows, longest, width), zeros at the end of shorter ones."""
        return torch.nn.utils.rnn.pad_sequence([self._known[_key(row)] for row in rows], batch_first=True)

    def joined(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """States of kept rows one after another, (1, total, width)."""
        return torch.cat([self._known[_key(row)] for row in rows])[None]

    def _look(self) -> None:
        """Read what others, or earlier calls, have kept since the last look."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path.name not in self._files:
                self._files.add(path.name)
                try:
                    self._add(load_file(path))
                except (SafetensorError, OSError, KeyError) as error:
                    _logger.warning("%s is damaged (%s); its rows are computed again", path, error)
                    path.unlink(missing_ok=True)
                    self._files.discard(path.name)  # it may come again

    def _add(self, file: dict[str, torch.Tensor]) -> None:
        ends, states = file["ends"].tolist(), file["states"]
        for key, start, end in zip(file["keys"].numpy(), [0, *ends], ends, strict=False):
            self._known[key.tobytes()] = states[start:end]

    def _no_room(self, size: int) -> str:
        if size > _MANY_BYTES:
            _logger.info("keeping states of frozen layers: %.1f GB in %s", size / 1e9, self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        held = sum(path.stat().st_size for path in self._keeping.folder.rglob(f"*{_SUFFIX}"))
        if size > free // 2 or held + size > _MOST_BYTES:
            return f"the states take {size / 1e9:.1f} GB more, with {free / 1e9:.1f} GB free on the disk"
        return ""

    def _parts(self, rows: dict[bytes, Sequence[int]]) -> Iterator[dict[bytes, torch.Tensor]]:
        """The states of rows, so many at a time as one file holds."""
        part: dict[bytes, torch.Tensor] = {}
        size = 0
        for batch in _batches(rows):
            width = max(len(row) for row in batch.values())
            ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in batch.values()])
            states = self.bottom.states(ids.to(self.bottom.device)).to(device="cpu", dtype=self._dtype)
            for (key, row), found in zip(batch.items(), states, strict=True):
                part[key] = found[: len(row)]
                size += part[key].nbytes
            if size >= _FILE_BYTES:
                yield part
                part, size = {}, 0
        if part:
            yield part

    def _write(self, part: dict[bytes, torch.Tensor]) -> None:
        """Write a file; it is named by the rows it holds and by who writes it."""
        keys = np.frombuffer(b"".join(part), dtype=np.uint8).reshape(len(part), -1)
        content = {
            "keys": torch.from_numpy(keys.copy()),
            "ends": torch.tensor([len(states) for states in part.values()]).cumsum(0),
            "states": torch.cat(list(part.values())),
        }
        name = f"{blake2b(keys.tobytes(), digest_size=16).hexdigest()}-{os.getpid()}{_SUFFIX}"
        with whole_file(self._folder / name, "wb") as file:
            file.write(save(content))


def _key(row: Sequence[int]) -> bytes:
    return blake2b(np.asarray(row, dtype=np.int64).tobytes(), digest_size=16).digest()


def _batches(rows: dict[bytes, Sequence[int]]) -> Iterator[dict[bytes, Sequence[int]]]:
    """Rows of like lengths together, longest first."""
    batch: dict[bytes, Sequence[int]] = {}
    for key, row in sorted(rows.items(), key=lambda item: -len(item[1])):
        if batch and (len(batch) >= _BATCH_ROWS or (len(batch) + 1) * len(next(iter(batch.values()))) > _BATCH_TOKENS):
            yield batch
            batch = {}
        batch[key] = row
    if batch:
        yield batch
