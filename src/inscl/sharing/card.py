"""The card of what is shared: its `README.md`, with the head that the Hub reads."""

import re
from collections.abc import Iterable

import yaml

from inscl.sharing.bundle import LIST, Bundle, Kind
from inscl.sharing.contents import Content

_WHAT: dict[Kind, str] = {
    "memory": "The memory of a model that keeps learning: the tasks it was trained on, split, tagged and encoded, and "
    "what was replayed at each stage.",
    "plan": "A replay plan: which rows of earlier tasks are replayed while a model learns a new one, and why.",
    "run": "An experiment that compares ways to replay: every plan, mixture, answer and score.",
    "stage": "One stage of a model that keeps learning: what was replayed, what it trained on, its answers and scores.",
}
_NO_LICENCE = (
    "None is stated. The rows keep the licences of the data that they came from; ask whoever shared them before you "
    "use them."
)
_NO_DATA = "Whoever shared it does not say."
_THIS_VIEW = {
    "memory": "memory/tasks/*/examples.parquet",
    "run": "run/results.parquet",
}  # the tables that people look at


def card(content: Content, bundle: Bundle, *, place: str, licence: str | None = None, about: str | None = None) -> str:
    """The text of a card.

    Parameters
    ----------
    content : Content
    bundle : Bundle
    place : str
        Where it will lie, for the command that pulls it.
    licence : str, optional
        As the Hub calls it, such as "cc-by-4.0".
    about : str, optional
        Which data it came from, in the words of whoever shares it; Markdown.
    """
    counts = [*content.facts, ("files", f"{len(bundle.files):,}, {bundle.size:,} bytes")]
    counts += [("made with", ", ".join(f"{name} {version}" for name, version in sorted(bundle.versions.items())))]
    parts = [
        f"# A {content.kind} of inscl\n\n{_WHAT[content.kind]}",
        _table(("", ""), counts),
        "## Get it\n\n```console\n$ pip install 'inscl[hub]'\n$ " + _command(content.kind, place) + "\n```",
        f"`inscl pull` checks every file against `{LIST}` before it is used.",
        _table(("task", "holds"), content.tasks) if content.tasks else "",
        f"## Which data\n\n{about.strip() if about else _NO_DATA}",
        f"## Licence\n\n{_text(licence) if licence else _NO_LICENCE}",
    ]
    return f"---\n{_head(content.kind, licence)}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _command(kind: Kind, place: str) -> str:
    target = "plan.json" if kind == "plan" else kind
    return f"inscl pull {place if re.fullmatch(r'[-@%+=:,./_A-Za-z0-9]+', place) else 'THIS-FOLDER'} {target}"


def _head(kind: Kind, licence: str | None) -> str:
    head: dict[str, object] = {"license": licence} if licence else {}
    head |= {"tags": ["inscl", "continual-learning", f"inscl-{kind}"]}
    if kind in _THIS_VIEW:
        head["configs"] = [{"config_name": "default", "data_files": _THIS_VIEW[kind]}]
    return str(yaml.safe_dump(head, sort_keys=False, allow_unicode=True))


def _table(heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [heads, ("---", "---"), *((_text(what), _text(value)) for what, value in rows)]
    return "\n".join(f"| {what} | {value} |" for what, value in lines)


def _text(text: str) -> str:
    """Strangers' text as text, in one line of Markdown.

    >>> _text("a | <b>*c*</b>")
    'a \\\\| \\\\<b\\\\>\\\\*c\\\\*\\\\</b\\\\>'
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return re.sub(r"([\\`*_\[\]<>|#!&$~])", r"\\\1", line)
