"""The order in which a stream meets its tasks: as given, the paper's, reversed, shuffled, easy to hard."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from inscl.errors import ConfigError
from inscl.suggest import suggest

Order = str | tuple[str, ...]  # a name, or the tasks themselves

_CURRICULUM = (
    "Classification", "Text_Quality_Evaluation", "Code", "Detection", "Sentiment_Analysis", "Comprehension",
    "Closed_QA", "Extraction", "Dialogue", "Program_Execution", "Rewriting", "Open_QA", "Misc", "Generation",
    "Summarization", "Mathematics",
)  # fmt: skip
_RANDOM = (
    "Text_Quality_Evaluation", "Mathematics", "Dialogue", "Summarization", "Extraction", "Misc", "Closed_QA",
    "Code", "Rewriting", "Detection", "Comprehension", "Sentiment_Analysis", "Open_QA", "Program_Execution",
    "Generation", "Classification",
)  # fmt: skip
PAPER_ORDERS: dict[str, tuple[str, ...]] = {
    "paper-curriculum": _CURRICULUM,
    "paper-reverse": _CURRICULUM[::-1],
    "paper-random": _RANDOM,
}
_ORDER_NAMES = ("given", "reverse", "random:SEED", "curriculum", *PAPER_ORDERS)


def with_seed(order: Order, seed: int) -> Order:
    """An order with the seed of its stream where it leaves the seed open.

    >>> with_seed("random", 7), with_seed("random:1", 7), with_seed("given", 7)
    ('random:7', 'random:1', 'given')
    """
    return f"random:{seed}" if order == "random" else order


def order_of(order: Order, task_names: Sequence[str], dev_scores: Mapping[str, float] | None = None) -> list[str]:
    """Tasks in the order they are learnt.

    Parameters
    ----------
    order : str or sequence of str
        ``given``; ``reverse`` (of given); ``random:SEED`` (`with_seed` completes ``random``); ``curriculum``, from
        the task whose expert scores best to the worst, ties as given; ``paper-curriculum``, ``paper-reverse`` and
        ``paper-random``, the orders of the paper's 16 categories, of which tasks may be a part; or all tasks in the
        wanted order.
    task_names : sequence of str
        All tasks of the stream, without repeats.
    dev_scores : mapping from task to float, optional
        Scores of the experts on the development rows; needed for ``curriculum`` only.

    Returns
    -------
    list of str
        A permutation of `task_names`.

    Raises
    ------
    ConfigError
        If the order is unknown, is not a permutation of the tasks, or lacks what it is made from.

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435; the paper's orders are those of the authors' code.

    Examples
    --------
    >>> order_of("curriculum", ["a", "b", "c"], {"a": 0.2, "b": 0.9, "c": 0.9})
    ['b', 'c', 'a']
    >>> order_of("paper-reverse", ["Code", "Misc", "Detection"])
    ['Misc', 'Detection', 'Code']
    """
    names = list(task_names)
    if not isinstance(order, str):
        return _permutation(list(order), names, "the list")
    if order in PAPER_ORDERS:
        known = PAPER_ORDERS[order]
        return _permutation([name for name in known if name in names], names, f"'{order}'")
    if order == "given":
        return names
    if order == "reverse":
        return names[::-1]
    if order == "curriculum":
        return _easy_to_hard(names, dev_scores)
    if seed := re.fullmatch(r"random:(\d+)", order):
        return [names[i] for i in np.random.default_rng(int(seed[1])).permutation(len(names))]
    raise ConfigError(
        f"Unknown order '{order}'; wanted {', '.join(_ORDER_NAMES)}, or a list of all tasks."
        f"{suggest(order, _ORDER_NAMES)}"
    )


def _permutation(order: list[str], names: list[str], what: str) -> list[str]:
    """The order itself, where it holds every task once."""
    faults = []
    if unknown := [name for name in order if name not in names]:
        faults.append(f"names no task of the stream: {_quoted(unknown)}{suggest(unknown[0], names)}")
    if missing := [name for name in names if name not in order]:
        faults.append(f"leaves out {_quoted(missing)}")
    if twice := [name for name in dict.fromkeys(order) if order.count(name) > 1]:
        faults.append(f"names twice {_quoted(twice)}")
    if faults:
        raise ConfigError(f"An order holds every task once, but {what} {' and '.join(faults)}.")
    return order


def _easy_to_hard(names: list[str], dev_scores: Mapping[str, float] | None) -> list[str]:
    if dev_scores is None:
        raise ConfigError("The order 'curriculum' is made from experts' development scores. Set `experts`.")
    if missing := [name for name in names if name not in dev_scores]:
        raise ConfigError(f"The order 'curriculum' lacks the expert's development score of {_quoted(missing)}.")
    return sorted(names, key=lambda name: -dev_scores[name])


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
