"""Push something to a place, and pull it from there."""

import os
from dataclasses import dataclass
from pathlib import Path

from inscl.errors import InsclError
from inscl.memory.memory import Memory
from inscl.provenance import versions_of
from inscl.sharing.bundle import CARD, Bundle
from inscl.sharing.card import card
from inscl.sharing.contents import look, share
from inscl.sharing.hub import SCHEME, HubDataset
from inscl.sharing.places import Folder, Place, beside
from inscl.stages.folder import PLAN

_MADE_WITH = ("inscl", "pylance", "pyarrow")


@dataclass(frozen=True)
class Shared:
    """What was pushed or pulled.

    Attributes
    ----------
    kind : str
        "memory", "plan", "run" or "stage".
    place : str
        Where it lies now.
    files : int
    bytes : int
    """

    kind: str
    place: str
    files: int
    bytes: int


def push(
    source: str | Path,
    dest: str | Path,
    *,
    memory: Memory | None = None,
    licence: str | None = None,
    about: str | None = None,
    weights: bool = False,
    public: bool = False,
) -> Shared:
    """Give a memory, a plan, a run or a stage to others.

    Parameters
    ----------
    source : path
        A memory's folder or URI, a plan's file, the folder of a run or of a stage of `learn`.
    dest : path
        A new or empty folder, or one that an earlier push wrote; or ``hf://datasets/OWNER/NAME``.
    memory : Memory, optional
        Where a plan or stage came from; rows that it no longer has are not shared. Default: the one in ``memory``.
    licence, about : str, optional
        For the card: a licence's name, and which data it came from.
    weights : bool
        Whether the models of a run or stage go, too.
    public : bool
        Whether all may see a dataset of the Hub.

    Raises
    ------
    InsclError
        If there is nothing to share, `dest` holds something else, or the Hub cannot be reached or refuses.
    """
    place = place_of(dest, public=public)
    with place.work() as folder:
        content = share(str(source), folder, memory or Memory(), weights=weights)
        bundle = Bundle.of(folder, content.kind, dict(versions_of(_MADE_WITH)))
        bundle.write(folder)
        text = card(content, bundle, place=place.name, licence=licence, about=about)
        (folder / CARD).write_text(text, encoding="utf-8")
        return Shared(content.kind, place.put(folder), len(bundle.files), bundle.size)


def pull(source: str | Path, dest: str | Path) -> Shared:
    """Fetch what somebody pushed, check it, and put it in its place: all of it, or nothing.

    Parameters
    ----------
    source : path
        A folder that `push` wrote, or ``hf://datasets/OWNER/NAME``, where a branch, tag or commit may follow after
        ``@``.
    dest : path
        A folder that is empty or not there yet; of a plan, a file that is not there.

    Raises
    ------
    InsclError
        If `dest` is there already, or what came is not what was pushed.
    """
    dest = Path(dest)
    _refuse_what_is_there(dest)
    with beside(dest) as work:
        bundle = place_of(source).get(work / "got")
        got = work / "got" / bundle.kind
        if bundle.kind == "memory":
            Memory(work / "new").read_plain(got)
            got = work / "new"
        else:
            look(bundle.kind, got)
        _settle(got / PLAN if bundle.kind == "plan" else got, dest)
    return Shared(bundle.kind, str(dest), len(bundle.files), bundle.size)


def place_of(name: str | Path, *, public: bool = False) -> Place:
    """The place that a user means."""
    return HubDataset(str(name), public=public) if str(name).startswith(SCHEME) else Folder(name)


def _refuse_what_is_there(dest: Path) -> None:
    if dest.is_symlink() or (dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))):
        raise InsclError(f"'{dest}' is there already, and is not overwritten. Name another place.")


def _settle(made: Path, dest: Path) -> None:
    """Give something its name, unless another has taken it in the meantime."""
    try:
        if made.is_dir():
            made.replace(dest)
        else:
            os.link(made, dest)
    except OSError as error:
        raise InsclError(f"'{dest}' cannot be made ({error.strerror}). Name another place.") from error
