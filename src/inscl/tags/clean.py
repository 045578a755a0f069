"""Clean tags: one spelling for one word, then one name for tags that mean the same."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from inscl.errors import DataError
from inscl.tags.neighbours import Pairs, pairs_within

_Embed = Callable[[list[str]], NDArray[np.floating]]

# Calibrated per encoder on real definitions: docs/tags.md says how. A radius means nothing for another encoder.
_RADII: Mapping[str, float] = {"all-minilm-l6-v2": 0.16}
DEFAULT_RADIUS = _RADII["all-minilm-l6-v2"]
DEFAULT_MIN_SAMPLES = 2

_JOINERS = "\u200c\u200d"  # zero-width joiners are spelling in Persian, Sinhala, Malayalam …
_REMEMBERED = 1000  # neighbour pairs kept per tag; beyond that they are computed anew


class _LettersOnly(dict[int, str]):
    """Table for `str.translate`: letters, marks and joiners stay, all else becomes a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = char if unicodedata.category(char)[0] in "LM" or char in _JOINERS else " "
        return self[code]


_LETTERS_ONLY = _LettersOnly()


def _normalise_tag(tag: str, language: str = "en") -> str:
    """One spelling of a tag: lower case, non-letters to spaces, lemmas, single spaces.

    Letters of every script stay, and so do the combining marks that belong to them. A word without a letter
    (a digit, an emoji) goes.

    Parameters
    ----------
    tag : str
        The tag as a tagger or a user wrote it.
    language : str
        ISO 639-1 code, with or without a region. A language that simplemma does not know has no lemmas.

    Returns
    -------
    str
        The clean tag; '' when nothing is left.

    Examples
    --------
    >>> _normalise_tag("Answering  multiple-choice questions (3)")
    'answer multiple choice question'
    >>> _normalise_tag("भाषा पहचान"), _normalise_tag("42 🙂")
    ('भाषा पहचान', '')
    """
    text = unicodedata.normalize("NFC", tag).lower().translate(_LETTERS_ONLY)
    return " ".join(lemma for word in text.split() if (lemma := _lemma(word.strip(_JOINERS), language)))


def clean_tags(tags: Iterable[str], language: str = "en") -> tuple[str, ...]:
    """The distinct clean tags of one instruction, sorted; tags of which nothing is left go.

    >>> clean_tags(["Questions", "question", "1.", "Answer"])
    ('answer', 'question')
    """
    return tuple(sorted({clean for tag in tags if (clean := _normalise_tag(tag, language))}))


@lru_cache(maxsize=1 << 16)
def _lemma(word: str, language: str) -> str:
    """The lemma in lower case, or '' for what has no letter."""
    if not any(map(str.isalpha, word)):
        return ""
    lemma = _lemmatiser(language)(word).lower().translate(_LETTERS_ONLY)
    return " ".join(unicodedata.normalize("NFC", lemma).split()) or word


@cache
def _lemmatiser(language: str) -> Callable[[str], str]:
    from simplemma import Lemmatizer
    from simplemma.strategies import DefaultStrategy
    from simplemma.strategies.dictionaries import LOW_MEMORY_DICTIONARY_FACTORY

    code = language.lower().replace("_", "-").split("-")[0]
    # Ready in half the time of the default, which decodes the whole word list first.
    lemmatiser = Lemmatizer(lemmatization_strategy=DefaultStrategy(dictionary_factory=LOW_MEMORY_DICTIONARY_FACTORY))
    try:
        lemmatiser.lemmatize("a", lang=code)
    except ValueError:  # no word list for this language
        return str
    return lambda word: lemmatiser.lemmatize(word, lang=code)


def radius_for(encoder: str) -> float | None:
    """The calibrated merging radius of an encoder, by its name; None for one that nobody has calibrated.

    >>> radius_for("sentence-transformers/all-MiniLM-L6-v2")
    0.16
    """
    return next((radius for name, radius in _RADII.items() if name in encoder.lower()), None)


@dataclass(frozen=True)
class MergedTags:
    """Tags after merging, and what merging did.

    Attributes
    ----------
    names : mapping of str to str
        Every distinct tag and its name after merging (itself where it stands alone).
    tag_sets : tuple of frozenset of str
        The merged tags of each instruction, in the order given.
    n_tags : int
        Distinct tags before merging.
    n_clusters : int
        Clusters found; each has one name.
    n_merged : int
        Tags that took another tag's name.
    radius : float
        Cosine distance within which two tags are neighbours.
    alike : tuple of str
        The largest group of at least three tags with nearly one embedding: most likely a script that the encoder
        cannot read. They are merged like any others. Empty when there is none.
    """

    names: Mapping[str, str]
    tag_sets: tuple[frozenset[str], ...]
    n_tags: int
    n_clusters: int
    n_merged: int
    radius: float
    alike: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """One line when merging changed nothing or when the encoder does not read the tags, '' otherwise."""
        if self.alike:
            return (
                f"The encoder cannot tell {len(self.alike)} of the {self.n_tags} tags apart, such as "
                f"'{self.alike[0]}' and '{self.alike[1]}': use one that reads their language."
            )
        if self.n_merged or self.n_tags < 2:
            return ""
        return (
            f"No two of the {self.n_tags} tags were merged within radius {self.radius}: "
            "if some mean the same, calibrate the radius to the encoder (docs/tags.md)."
        )


class TagSpace:
    """Merges the tags of many pools; each tag is embedded, and each pair compared, once.

    `merge` gives for a pool what a new space would give, whatever was merged before. Neighbour pairs are
    remembered up to 1,000 per tag, so memory grows with the tags and not with their square; beyond that
    (a radius far too wide) they are computed anew each time.

    Parameters
    ----------
    embed : callable, list of n str -> array of shape (n, d)
        The sentence encoder. Rows need not have unit length; float16 will do.
    radius : float
        Largest cosine distance of neighbours, 0 to 2. It belongs to the encoder: see `radius_for`.
    min_samples : int
        Neighbours, itself included, that make a tag the core of a cluster.
    """

    def __init__(
        self, embed: _Embed, *, radius: float = DEFAULT_RADIUS, min_samples: int = DEFAULT_MIN_SAMPLES
    ) -> None:
        if not 0 <= radius <= 2:
            raise DataError(f"`radius` is a cosine distance from 0 to 2, got {radius}.")
        if min_samples < 1:
            raise DataError(f"`min_samples` must be at least 1, got {min_samples}.")
        self._embed = embed
        self._radius = radius
        self._min_samples = min_samples
        self._index: dict[str, int] = {}
        self._vectors = np.empty((0, 0), dtype=np.float32)  # (n_tags, d), unit rows
        self._coarse: list[bytes] = []  # hash of each vector to two decimals
        self._pairs: Pairs | None = (np.empty(0, np.int32), np.empty(0, np.int32))

    def merge(self, tag_sets: Sequence[Iterable[str]]) -> MergedTags:
        """Give tags that mean the same one name: DBSCAN over the distinct tags, each counted once.

        Every member of a cluster becomes the cluster's most frequent tag (the one most instructions carry; of
        several, the alphabetically first). Tags outside all clusters keep their name. Nothing depends on the order
        of the tags or of the instructions.

        Parameters
        ----------
        tag_sets : sequence of collections of str, one per instruction
            Clean tags, as from `clean_tags`. A tag counts once per instruction.

        Raises
        ------
        DataError
            If `embed` gives another shape, values that are not finite, or a zero row.

        Examples
        --------
        >>> compass = {"east": (1, 0), "eastward": (1, 0.1), "north": (0, 1)}
        >>> space = TagSpace(lambda tags: np.array([compass[tag] for tag in tags]), radius=0.1, min_samples=2)
        >>> merged = space.merge([{"east", "north"}, {"eastward"}, {"east"}])
        >>> [sorted(tags) for tags in merged.tag_sets]
        [['east', 'north'], ['east'], ['east']]
        >>> merged.n_tags, merged.n_clusters, merged.n_merged
        (3, 1, 1)
        """
        sets = [frozenset(tags) for tags in tag_sets]
        frequency = Counter(tag for tags in sets for tag in tags)
        tags = sorted(frequency)
        self._remember(tags)
        index = np.array([self._index[tag] for tag in tags], dtype=np.int64)
        labels = _dbscan(len(tags), lambda: self._neighbours(index), self._min_samples)

        members: dict[int, list[str]] = {}
        for i in np.flatnonzero(labels >= 0):
            members.setdefault(int(labels[i]), []).append(tags[i])
        names = {tag: tag for tag in tags}
        for cluster in members.values():
            # `cluster` is in alphabetical order and `max` takes the first of several.
            names.update(dict.fromkeys(cluster, max(cluster, key=frequency.__getitem__)))
        return MergedTags(
            names=names,
            tag_sets=tuple(frozenset(map(names.__getitem__, tags)) for tags in sets),
            n_tags=len(tags),
            n_clusters=len(members),
            n_merged=sum(tag != name for tag, name in names.items()),
            radius=self._radius,
            alike=self._alike(tags),
        )

    def _alike(self, tags: list[str]) -> tuple[str, ...]:
        """The largest group of three tags or more with nearly one embedding; of several, the first."""
        groups: dict[bytes, list[str]] = {}
        for tag in tags:
            groups.setdefault(self._coarse[self._index[tag]], []).append(tag)
        largest = max(groups.values(), key=len, default=[])
        return tuple(largest) if len(largest) > 2 else ()

    def _remember(self, tags: Iterable[str]) -> None:
        """Embed the tags not seen before and find their neighbours among all tags seen."""
        new = [tag for tag in tags if tag not in self._index]
        if not new:
            return
        start = len(self._index)
        rows = _unit_rows(self._embed(new), new)
        if start and rows.shape[1] != self._vectors.shape[1]:
            raise DataError(
                f"`embed` gave {rows.shape[1]} dimensions after {self._vectors.shape[1]}: use one encoder throughout."
            )
        self._vectors = np.vstack([self._vectors, rows]) if start else rows
        coarse = np.round(rows * 100).astype(np.int8)
        self._coarse += [blake2b(row.tobytes(), digest_size=8).digest() for row in coarse]
        self._index.update(zip(new, range(start, start + len(new)), strict=True))
        if self._pairs is None:
            return
        found, count = [self._pairs], len(self._pairs[0])
        for pairs in pairs_within(self._vectors, self._radius, start):
            found.append(pairs)
            count += len(pairs[0])
            if count > _REMEMBERED * len(self._index):
                self._pairs = None
                return
        self._pairs = np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])

    def _neighbours(self, index: NDArray[np.int64]) -> Iterator[Pairs]:
        """Neighbour pairs of a pool, as positions in `index`, in parts of bounded size."""
        if self._pairs is None:
            yield from pairs_within(self._vectors[index], self._radius)
            return
        position = np.full(len(self._index), -1, dtype=np.int32)
        position[index] = np.arange(len(index), dtype=np.int32)
        i, j = position[self._pairs[0]], position[self._pairs[1]]
        inside = (i >= 0) & (j >= 0)
        yield i[inside], j[inside]


def _dbscan(n: int, neighbours: Callable[[], Iterable[Pairs]], min_samples: int) -> NDArray[np.int64]:
    """DBSCAN from neighbour pairs that come in parts, so that they need never be in memory together.

    Cores are the points with at least `min_samples` neighbours, themselves included; clusters are the connected
    components of the cores; a point beside cores joins the first of their clusters. scikit-learn's DBSCAN gives
    the same labels from the whole graph at once, and takes about a second to import.

    Parameters
    ----------
    n : int
        Number of points.
    neighbours : callable giving an iterable of (i, j)
        Every pair of neighbours once, i != j. Called up to three times.
    min_samples : int
        As above.

    Returns
    -------
    array of int, shape (n,)
        Cluster of each point, numbered by first core; -1 for noise.

    References
    ----------
    Ester et al. (1996), "A density-based algorithm for discovering clusters".

    Examples
    --------
    >>> pairs = np.array([0, 1]), np.array([1, 2])
    >>> _dbscan(4, lambda: [pairs], min_samples=3).tolist()
    [0, 0, 0, -1]
    """
    degree = np.ones(n, dtype=np.int64)
    for i, j in neighbours():
        degree += np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    core = degree >= min_samples

    component = np.arange(n)
    for i, j in neighbours():
        both = core[i] & core[j]
        component = _joined(component, i[both], j[both])

    labels = np.full(n, n, dtype=np.int64)
    first, inverse = np.unique(component[core], return_index=True, return_inverse=True)[1:]
    labels[core] = np.argsort(np.argsort(first))[inverse]
    if (degree[~core] > 1).any():
        beside = labels.copy()
        for i, j in neighbours():
            np.minimum.at(beside, i, labels[j])
            np.minimum.at(beside, j, labels[i])
        labels[~core] = beside[~core]
    labels[labels == n] = -1
    return labels


def _joined(component: NDArray[np.int64], i: NDArray[np.int32], j: NDArray[np.int32]) -> NDArray[np.int64]:
    """Each point's component, named by its first point, once the pairs `i`, `j` are joined too."""
    while True:
        first, second = component[i], component[j]
        apart = first != second
        if not apart.any():
            return component
        i, j = i[apart], j[apart]
        component = component.copy()
        np.minimum.at(component, np.maximum(first, second)[apart], np.minimum(first, second)[apart])
        while not np.array_equal(named := component[component], component):
            component = named


def _unit_rows(vectors: NDArray[np.floating], tags: list[str]) -> NDArray[np.float32]:
    """The embeddings with rows of length 1, checked."""
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(tags):
        raise DataError(f"`embed` gave shape {rows.shape} for {len(tags)} tags; wanted one row per tag.")
    norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    if not (np.isfinite(norms) & (norms > 0)).all():
        bad = tags[int(np.argmin(np.isfinite(norms) & (norms > 0)))]
        raise DataError(f"The embedding of tag {bad!r} is zero or not finite; cosine distance needs a direction.")
    return np.ascontiguousarray(rows / norms, dtype=np.float32)
