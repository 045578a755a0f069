"""A dataset of the Hub as a place to share through; the token comes from the Hub's own client alone."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from inscl.errors import InsclError, first_line, require
from inscl.libraries import hub_hushed, prepare_libraries
from inscl.sharing.bundle import CARD, KINDS, LIST, MOST_BYTES, Bundle

SCHEME = "hf://"
_URI = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/?")
_DATASET = "dataset"
_BESIDE = {".gitattributes", CARD, LIST}


class HubDataset:
    """A dataset of the Hub: each push is one commit, which sends only what the Hub does not have.

    Parameters
    ----------
    uri : str
        ``hf://datasets/OWNER/NAME``, where a branch, tag or commit may follow after ``@``.
    public : bool
        Whether all may see it.

    Raises
    ------
    InsclError
        If it is another address, or the Hub's client is not installed.
    """

    def __init__(self, uri: str, *, public: bool = False) -> None:
        found = _URI.fullmatch(uri)
        if found is None:
            raise InsclError(f"'{uri}' is no dataset of the Hub. Write hf://datasets/OWNER/NAME, or name a folder.")
        self.name, self._public = uri, public
        self._repo, self._revision = found["repo"], found["revision"] or "main"

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A folder among the system's temporary ones."""
        with tempfile.TemporaryDirectory(prefix="inscl-") as work:
            yield Path(work)

    def put(self, folder: Path) -> str:
        """Make the dataset what a folder holds, in one commit; a new one is private unless it is to be public.

        Raises
        ------
        InsclError
            If the Hub cannot be reached or refuses, the dataset holds something else, or it is public and nobody
            said that it should be.
        """
        with self._told():
            self._api.create_repo(self._repo, repo_type=_DATASET, private=not self._public, exist_ok=True)
            there = self._files(self._revision)
            self._refuse(there)
            self._commit(folder, there)
        return self.name

    def get(self, folder: Path) -> Bundle:
        """Fetch what is listed in one commit of the dataset, each file checked.

        Raises
        ------
        InsclError
            If the Hub cannot be reached or has no such dataset, or what it has is not what was pushed.
        """
        with tempfile.TemporaryDirectory(prefix="hub-", dir=folder.parent) as work, self._told():
            commit = self._info(self._revision).sha
            there = self._files(commit)
            if there.get(LIST, 0) <= MOST_BYTES:
                self._fetch([LIST], commit, work)
            bundle = Bundle.read(Path(work), self.name)
            if other := [name for name, file in bundle.files.items() if there.get(name) != file.bytes]:
                raise InsclError(f"{other[0]} of '{self.name}' is not what was pushed. Have it pushed again.")
            self._fetch(list(bundle.files), commit, work)
            bundle.take(Path(work), folder, self.name)
        return bundle

    @cached_property
    def _hub(self) -> Any:
        prepare_libraries()
        return require("huggingface_hub", extra="hub", purpose="A dataset of the Hub")

    @cached_property
    def _api(self) -> Any:
        return self._hub.HfApi(library_name="inscl")

    def _info(self, revision: str) -> Any:
        return self._api.repo_info(self._repo, repo_type=_DATASET, revision=revision)

    def _files(self, revision: str) -> dict[str, int]:
        """Bytes of each file."""
        tree = self._api.list_repo_tree(self._repo, recursive=True, revision=revision, repo_type=_DATASET)
        return {entry.path: entry.size for entry in tree if hasattr(entry, "size")}  # folders have none

    def _fetch(self, names: list[str], commit: str, target: str) -> None:
        if names:  # none of which holds a sign that patterns know
            self._api.snapshot_download(
                self._repo, repo_type=_DATASET, revision=commit, local_dir=target, allow_patterns=names
            )

    def _refuse(self, there: dict[str, int]) -> None:
        """Refuse a dataset that holds what no push of ours wrote, or that others see unasked."""
        strangers = [name for name in sorted(there) if name not in _BESIDE and name.split("/")[0] not in KINDS]
        if strangers or (LIST not in there and there.keys() - _BESIDE):
            what = (strangers or sorted(there.keys() - _BESIDE))[0]
            raise InsclError(f"'{self.name}' holds what is none of inscl's ({what}). Name another dataset.")
        if not self._public and not self._info(self._revision).private:
            raise InsclError(f"'{self.name}' is public: all would see what you push. Say --public, or name another.")

    def _commit(self, folder: Path, there: dict[str, int]) -> None:
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        gone = sorted(name for name in there.keys() - paths.keys() if name.split("/")[0] in KINDS)
        changes = [self._hub.CommitOperationAdd(name, path) for name, path in paths.items()]
        changes += [self._hub.CommitOperationDelete(name) for name in gone]
        self._api.create_commit(
            self._repo, changes, repo_type=_DATASET, revision=self._revision, commit_message="Push from inscl"
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the Hub or its client says where it refuses or cannot be reached, in one line."""
        _ = self._api  # loaded first: it sets how much it says
        try:
            with hub_hushed():
                yield
        except InsclError:
            raise
        except Exception as error:  # whichever the client's HTTP library raises
            status = getattr(getattr(error, "response", None), "status_code", None)
            hint = {
                401: "Log in with `hf auth login`, or set HF_TOKEN.",
                403: "Your token may not do this: give it the right to write, or use another.",
                404: "Check the name, and what follows after @; a private dataset needs `hf auth login`, or HF_TOKEN.",
            }.get(status or 0, "Check the network and the address, and run the command again.")
            raise InsclError(f"'{self.name}' cannot be used ({first_line(error)}). {hint}") from error
