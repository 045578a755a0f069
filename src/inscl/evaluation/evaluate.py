"""Score a model on held-out rows: greedy answers, and the loss on the reference answers.

Rows of many tasks are answered together, in large batches by length. Predictions are kept as JSON lines, one file
a task, and a finished file is not made again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inscl.core.scoring import SCORERS, exact_match
from inscl.core.stats import score_interval
from inscl.data.chat_form import to_messages
from inscl.data.example import Example, instruction_key, said
from inscl.data.template import render
from inscl.errors import ConfigError, DataError
from inscl.evaluation.answering import Asked
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.server import Server
from inscl.models.kernels import flexible_attention
from inscl.models.loading import LoadedModel, load
from inscl.models.precision import ready

if TYPE_CHECKING:
    from inscl.models.kept import Keeping

_BATCHES_AT_ONCE = 4  # full batches answered together; after each such group of tasks the predictions are on disk


@dataclass(frozen=True)
class TaskScore:
    """How one model did on one task.

    Attributes
    ----------
    n : int
        Rows scored.
    rouge_l, exact : float
        Means over the rows, best over the references of each; between 0 and 1.
    low, high : float
        95 % interval of `rouge_l`, clustered by instruction; None for a single row.
    loss : float or None
        Mean negative log-likelihood of a token of the first reference; None where it was not asked for.
    capped, truncated : int
        Answers cut off by the limit, and prompts whose input was cut.
    scorer : str
        Name of the scorer behind `rouge_l`.
    """

    n: int
    rouge_l: float
    exact: float
    low: float | None
    high: float | None
    loss: float | None
    capped: int
    truncated: int
    scorer: str


def answer_limit(examples: Sequence[Example], tokenizer: Any, *, chat: bool = False) -> int:
    """Tokens an answer may have: the 99th percentile of the training answers, their end token included.

    >>> answer_limit([Example("Say a.", "", ("a b",))], lambda text, **_: {"input_ids": text.split()})
    3
    """
    if not examples:
        raise DataError("Without training answers there is no limit to derive; give `max_new_tokens`.")
    answers = [said(to_messages(e)[-1]) if chat else render(e).completion for e in examples]
    lengths = [len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 for answer in answers]
    return int(np.percentile(lengths, 99, method="higher"))


def generate_and_score(
    model: str | Path | LoadedModel | Server,
    tasks: Mapping[str, Sequence[Example]],
    *,
    max_new_tokens: int | Mapping[str, int],
    scorer: str = "rouge_l",
    **asking: Any,
) -> dict[str, TaskScore]:
    """Answer the rows of every task and score the answers.

    Parameters
    ----------
    model, tasks, max_new_tokens, **asking
        As for `predict`.
    scorer : {"rouge_l", "superni", "exact_match"}
        See `inscl.core.scoring`.

    Raises
    ------
    ConfigError
        If there is no such scorer; else as `predict`.
    """
    if scorer not in SCORERS:
        raise ConfigError(f"`scorer` must be one of {', '.join(SCORERS)}, got {scorer!r}.")
    found = predict(model, tasks, max_new_tokens=max_new_tokens, exact_only=scorer == "exact_match", **asking)
    return {name: _score(rows, scorer) for name, rows in found.items()}


def predict(
    model: str | Path | LoadedModel | Server,
    tasks: Mapping[str, Sequence[Example]],
    *,
    max_new_tokens: int | Mapping[str, int],
    max_length: int = 1024,
    chat: bool = False,
    out: Path | None = None,
    loss: bool = True,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    exact_only: bool = False,
    keeping: "Keeping | None" = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[Prediction]]:
    """Answer the rows of every task.

    Parameters
    ----------
    model : str, Path, LoadedModel or Server
        What answers.
    tasks : mapping of str to sequence of Example
        Held-out rows, at least one per task.
    max_new_tokens : int or mapping of str to int
        Most tokens of an answer, for all tasks or per task; see `answer_limit`.
    max_length : int
        Most tokens of a prompt; longer ones lose the end of their input.
    chat : bool
        Whether the rows are asked through the tokenizer's chat template.
    out : Path, optional
        Folder for the predictions; those of the same model, rows and settings found there are used again.
    loss : bool
        Whether to take the loss on the first reference; a server gives none.
    dtype : {"auto", "float32", "bfloat16"}
        Of the weights that answer; see `inscl.models.precision.choose_dtype`.
    batch_tokens, batch_size : int, optional
        Most tokens (prompt and answer) and most rows of a batch; None fits the cache to the device.
    exact_only : bool
        Whether nothing but exact matches is asked for: an answer that can be none any more is not finished, and ends
        with "…".
    keeping : Keeping, optional
        Where states of the model's frozen layers are kept.
    progress : callable, optional
        Called with (rows answered, rows).

    Returns
    -------
    mapping from task to list of Prediction
        In the order of the rows.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    DataError
        If a task has no rows.
    """
    limits = _limits(tasks, max_new_tokens)
    source = load(model) if isinstance(model, str | Path) else model
    asked = Asked(
        limits,
        max_length=max_length,
        chat=chat,
        loss=loss and not isinstance(model, Server),
        exact_only=exact_only,
        chat_template=None if isinstance(source, Server) else source.tokenizer.chat_template,
    )
    files = {
        name: out / f"{asked.key(name, rows, source.identity)}.jsonl" for name, rows in tasks.items() if out is not None
    }
    found = {name: Prediction.read(path) for name, path in files.items() if path.exists()}
    missing = {name: rows for name, rows in tasks.items() if name not in found}
    if missing:
        answerer, at_once = _answerer(source, asked, dtype, batch_tokens, batch_size, keeping)
        for name, predictions in _answered(missing, answerer, at_once, progress):
            found[name] = predictions
            if name in files:
                Prediction.write(files[name], predictions)
    return {name: found[name] for name in tasks}


def _limits(tasks: Mapping[str, Sequence[Example]], most: int | Mapping[str, int]) -> dict[str, int]:
    """Most tokens of an answer to each task, which must have rows."""
    for name, rows in tasks.items():
        if not rows:
            raise DataError(f"Task {name!r} has no held-out rows to score. Give it more rows or a test file.")
    return {name: most if isinstance(most, int) else most[name] for name in tasks}


_Answerer = Callable[[Mapping[str, Sequence[Example]], Callable[[int, int], None]], dict[str, list[Prediction]]]


def _answered(
    tasks: Mapping[str, Sequence[Example]],
    answerer: _Answerer,
    at_once: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, list[Prediction]]]:
    """The answers task by task, as the groups they are answered in are done."""
    done, total = 0, sum(map(len, tasks.values()))
    for group in _groups(tasks, at_once):

        def tell(rows: int, _: int, offset: int = done) -> None:
            if progress:
                progress(offset + rows, total)

        for name, predictions in answerer(group, tell).items():
            done += len(predictions)
            yield name, predictions


def _answerer(
    source: LoadedModel | Server,
    asked: Asked,
    dtype: str,
    batch_tokens: int | None,
    batch_size: int | None,
    keeping: "Keeping | None",
) -> tuple[_Answerer, int]:
    """Who answers, and how many rows at once: what a server answered is paid for, and kept task by task."""
    if isinstance(source, Server):
        server = source
        return lambda tasks, tell: asked.ask_server(server, tasks, tell), 1
    from inscl.models.generate import batch_limits

    model = ready(source, dtype)
    batch = batch_limits(model.model, batch_tokens, batch_size)
    kept = keeping.of(model.model, answering=True) if keeping else None

    def ask(tasks: Mapping[str, Sequence[Example]], tell: Callable[[int, int], None]) -> dict[str, list[Prediction]]:
        with flexible_attention():
            return asked.ask_model(model, tasks, batch, kept, tell)

    return ask, _BATCHES_AT_ONCE * batch["batch_size"]


def _groups(tasks: Mapping[str, Sequence[Example]], at_once: int) -> Iterator[dict[str, Sequence[Example]]]:
    """Tasks that are answered together, so many that batches are full and predictions are saved now and then."""
    group: dict[str, Sequence[Example]] = {}
    for name, rows in tasks.items():
        group[name] = rows
        if sum(map(len, group.values())) >= at_once:
            yield group
            group = {}
    if group:
        yield group


def _score(rows: Sequence[Prediction], scorer: str) -> TaskScore:
    rouge = [SCORERS[scorer](row.prediction, row.references) for row in rows]
    clusters = [instruction_key(row.instruction) for row in rows]
    found = score_interval(rouge, clusters)
    tokens = sum(row.tokens for row in rows)
    return TaskScore(
        n=len(rows),
        rouge_l=found.mean,
        exact=float(np.mean([exact_match(row.prediction, row.references) for row in rows])),
        low=found.low,
        high=found.high,
        loss=sum(row.loss or 0.0 for row in rows) / tokens if tokens else None,
        capped=sum(row.capped for row in rows),
        truncated=sum(row.truncated for row in rows),
        scorer=scorer,
    )
