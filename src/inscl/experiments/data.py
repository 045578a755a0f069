"""The tasks of a run: read once into a memory of the run's own, sampled per seed, with fixed test rows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inscl.data.example import Example, Split, key_of
from inscl.data.split import Shares
from inscl.demo.sets import TASK_SETS
from inscl.errors import DataError
from inscl.experiments.config import Checkout, DemoTasks, General, StreamConfig, TaskFiles
from inscl.experiments.run_folder import RunFolder
from inscl.memory.encoder import Encoder
from inscl.memory.memory import Memory
from inscl.tags import Tagger

_NO_HELD_OUT = Shares(0.0, 0.0)
_GENERAL = "general data"  # what a run calls the general data that its configuration names


class StreamData:
    """The tasks of a configuration, in the run's folder.

    Parameters
    ----------
    config : StreamConfig
    folder : RunFolder
        Its memory holds the tasks as they are, and beside them the training rows of a seed where ``limits.train``
        draws them.
    encoder, tagger : optional
        As for `Memory`.
    """

    def __init__(
        self, config: StreamConfig, folder: RunFolder, encoder: Encoder | None = None, tagger: Tagger | None = None
    ) -> None:
        self.config, self.folder, self._tagger = config, folder, tagger
        self.whole = Memory(folder.memory(), encoder=encoder, tagger=tagger)
        self.sources = _sources_of(config)
        self._samples: dict[int, Memory] = {}

    @property
    def names(self) -> list[str]:
        """The tasks in their given order."""
        return list(self.sources)

    @property
    def chat(self) -> bool:
        """Whether any task is in chat form, and so all rows of the run are."""
        return any(info.form == "chat" for info in self.whole.tasks())

    def remember(self) -> None:
        """Read every task that is not remembered yet.

        Raises
        ------
        DataError
            If the data cannot be used, or a task has no training or no test rows.
        """
        for name, source in self.sources.items():
            if name not in self.whole:
                self.whole.add(name, source.pop("data"), **source)
        general = self.config.general
        if general and general.data and _GENERAL not in self.whole:
            source = _of_files(general, self.config)
            self.whole.add(_GENERAL, source.pop("data"), general=True, shares=_NO_HELD_OUT, **source)
        for info in self.whole.tasks():
            if info.general:
                continue
            if missing := [side for side in ("train", "test") if not info.rows[side]]:
                raise DataError(
                    f"Task '{info.name}' has no {missing[0]} rows, so a stream cannot "
                    f"{'learn' if missing[0] == 'train' else 'score'} it. Give it at least three distinct inputs, "
                    "or `test:` with a file of held-out rows; then name another folder with --out."
                )

    def memory(self, seed: int) -> Memory:
        """The memory that plans of a seed are made from: all tasks, with the training rows of this seed."""
        limit = self.config.limits.train
        if limit is None:
            return self.whole
        if seed not in self._samples:
            sample = Memory(self.folder.memory(seed), encoder=_FromCache(self.whole), tagger=self._tagger)
            for name in self.names:
                if name not in sample:
                    sample.add(name, self._sample(name, seed, limit), tags=self._tags(name), shares=_NO_HELD_OUT)
            if _GENERAL in self.whole and _GENERAL not in sample:
                rows, tags = self.rows(_GENERAL, "train"), self._tags(_GENERAL)
                sample.add(_GENERAL, rows, general=True, tags=tags, shares=_NO_HELD_OUT)
            self._samples[seed] = sample
        return self._samples[seed]

    def rows(self, name: str, side: Split, limit: int | None = None) -> list[Example]:
        """Rows of a side in the order of their keys' hashes, so that a lower limit takes a beginning of them."""
        if side == "test":
            limit = min((n for n in (limit, self.config.limits.test) if n is not None), default=None)
        return self.whole.task(name).sample(side, limit)

    def _sample(self, name: str, seed: int, limit: int) -> list[Example]:
        task = self.whole.task(name)
        rows = task.examples(task.side("train"))
        order = sorted((key_of("sample", str(seed), row.key.hex()), i, row) for i, row in enumerate(rows))
        return [replace(row, split="train") for _, _, row in order[:limit]]

    def _tags(self, name: str) -> dict[bytes, Sequence[str]]:
        known = self.whole.task(name).instructions
        return dict(zip(known.keys, known.tags, strict=True))


def _sources_of(config: StreamConfig) -> dict[str, dict[str, Any]]:
    """Where the data of each task are, as arguments of `Memory.add`, in the order of the configuration."""
    tasks = config.tasks
    if isinstance(tasks, DemoTasks):
        made = TASK_SETS[tasks.demo].make(tasks.seed, train=tasks.train, dev=tasks.dev, test=tasks.test)
        return {name: {"data": made[name]} for name in tasks.only or made}
    if isinstance(tasks, Checkout):
        return _of_checkout(tasks, config)
    return {name: _of_files(files, config) for name, files in tasks.items()}


def _of_checkout(tasks: Checkout, config: StreamConfig) -> dict[str, dict[str, Any]]:
    from inscl.data.superni import superni_files

    groups = config.locate(tasks.categories) if isinstance(tasks.categories, str) else tasks.categories
    files = superni_files(config.locate(tasks.superni), groups)
    if unknown := [name for name in tasks.only or () if name not in files]:
        raise DataError(f"`tasks.only` names '{unknown[0]}', which the checkout has not. It has {', '.join(files)}.")
    return {
        name: {"data": [str(file) for file in files[name]], "format": "superni"} for name in tasks.only or tuple(files)
    }


def _of_files(files: TaskFiles | General, config: StreamConfig) -> dict[str, Any]:
    given: dict[str, Any] = files.model_dump(exclude={"share"}, exclude_none=True)
    paths: dict[str, Any] = {side: config.locate(given[side]) for side in ("dev", "test") if side in given}
    return {**given, **paths, "data": _one_or_many([config.locate(path) for path in files.data or ()])}


def _one_or_many(paths: list[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else paths


class _FromCache:
    """The encoder of a memory, through its cache: a sample's instructions are never encoded again."""

    def __init__(self, memory: Memory) -> None:
        self._encode = memory.encode
        self.identity = memory.encode.identity

    def __call__(self, texts: list[str], /) -> np.ndarray[Any, Any]:
        return self._encode(texts).vectors

    def too_long(self, texts: list[str]) -> Iterable[bool]:
        """Which texts the encoder cut."""
        return [bool(cut) for cut in self._encode(texts).cut]
