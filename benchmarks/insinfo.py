"""How each InsInfo ranks real task definitions, and how stable that is when the tagger changes.

    python benchmarks/insinfo.py             all tables
    python benchmarks/insinfo.py --show 5    the first and last five definitions of each ranking too, to read

`--data DIR` names a Super-NaturalInstructions folder with `tasks/*.json` and `categories.json`.
"""

import argparse
import json
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo
from inscl.memory.encoder import SentenceEncoder, encode
from inscl.tags.clean import MergedTags, TagSpace, clean_tags
from inscl.tags.keyphrase import KeyphraseTagger
from taggers import DATA, Tagging, first_words, ours, tfidf, yake_raw

NO_CAP = 10**6
TENTH = 10
TWINS = 0.1  # cosine distance below which two definitions are nearly one
FEW = 10  # definitions of a category, below which its rank correlation says little


@dataclass(frozen=True)
class Definitions:
    """The distinct definitions of all tasks, their embeddings and the first task's category of each."""

    texts: list[str]
    categories: list[str]
    embeddings: np.ndarray  # (n, d)

    @property
    def words(self) -> list[int]:
        return [len(text.split()) for text in self.texts]


def read_definitions(folder: Path, encoder: SentenceEncoder) -> tuple[Definitions, int]:
    """The definitions, and of how many tasks they are."""
    of = {task: name for name, tasks in json.loads((folder / "categories.json").read_text()).items() for task in tasks}
    found: dict[str, str] = {}
    files = sorted((folder / "tasks").glob("*.json"))
    for file in files:
        definition = json.loads(file.read_text())["Definition"]
        text = definition if isinstance(definition, str) else " ".join(definition)
        found.setdefault(text, of.get(file.stem, "in no category"))
    return Definitions(list(found), list(found.values()), encode(encoder, list(found)).vectors), len(files)


def merged(tagger: Tagging, texts: list[str], space: TagSpace) -> MergedTags:
    return space.merge([clean_tags(map(str, tags)) for tags in tagger(texts)])


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else float("nan")


def scores_of(tags: Sequence[frozenset[str]], data: Definitions) -> dict[str, list[float]]:
    return {
        "paper": insinfo(tags),
        "mean": mean_insinfo(tags),
        "density": density_insinfo(data.embeddings),
    }


def print_correlations(label: str, tags: Sequence[frozenset[str]], data: Definitions) -> None:
    """Rank correlation of each InsInfo with length, number of tags and the others; and who comes first.

    The plain mean stands for what `mean` would be without its further tag of average rarity.
    """
    scores, sizes = scores_of(tags, data), np.array([len(instruction) for instruction in tags])
    plain = np.array(scores["paper"]) / np.maximum(1, sizes)
    print(f"{label}: {min(sizes)} to {max(sizes)} tags, median {np.median(sizes):g}")
    heads = ("words", "tags", *scores, "distinct", "1 tag %", "1st: 1 tag %")
    print(f"{'':10}" + "".join(f"{head:>14}" for head in heads))
    for name, score in {**scores, "plain mean": plain.tolist()}.items():
        first = np.argsort(-np.array(score), kind="stable")[: len(tags) // TENTH]
        row = [spearman(score, other) for other in (data.words, sizes.tolist(), *scores.values())]
        numbers = "".join(f"{value:14.2f}" for value in row) + f"{len(set(score)):14}"
        print(f"{name:10}" + numbers + "".join(f"{100 * np.mean(n == 1):14.0f}" for n in (sizes, sizes[first])))
    print()


def print_ends(tags: Sequence[frozenset[str]], data: Definitions, show: int) -> None:
    """What the first and the last tenth of each ranking are like."""
    frequency = Counter(tag for instruction in tags for tag in instruction)
    nearest = np.array(density_insinfo(data.embeddings, 1))
    tenth = len(tags) // TENTH
    heads = ("words", "tags", "once %", "nearest", "twins %")
    twins = 100 * np.mean(nearest < TWINS)
    print(f"First and last tenth ({tenth} definitions each); of all definitions {twins:.0f} % have a twin")
    print(f"{'':16}" + "".join(f"{h:>9}" for h in heads))
    for name, score in scores_of(tags, data).items():
        order = np.argsort(-np.array(score), kind="stable")
        for end, rows in (("first", order[:tenth]), ("last", order[::-1][:tenth])):
            carried = [tag for i in rows for tag in tags[i]]
            values = (
                np.median([data.words[i] for i in rows]),
                np.mean([len(tags[i]) for i in rows]),
                100 * np.mean([frequency[tag] == 1 for tag in carried]),
                np.median(nearest[rows]),
                100 * np.mean(nearest[rows] < TWINS),
            )
            common = Counter(data.categories[i] for i in rows).most_common(3)
            numbers = "".join(f"{v:9.{d}f}" for v, d in zip(values, (0, 1, 0, 2, 0), strict=True))
            print(f"{name:8} {end:6} {numbers}   " + ", ".join(f"{c} {n}" for c, n in common))
            for i in rows[:show]:
                print(textwrap.indent(textwrap.fill(f"{score[i]:.3f} {data.texts[i][:400]}", 110), "      "))
    print()


def print_neighbours(data: Definitions) -> None:
    """How the number of neighbours, or a Gaussian kernel in their place, changes the ranking by density."""
    began = time.perf_counter()
    reference = density_insinfo(data.embeddings)
    print(f"density took {time.perf_counter() - began:.2f} s; the ranking against it:")
    for k in (1, 3, 10, 20, 50):
        print(f"  {k:3} neighbours {spearman(density_insinfo(data.embeddings, k), reference):10.2f}")
    from sklearn.neighbors import KernelDensity

    rows = data.embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for bandwidth in (0.1, 0.2, 0.3, 0.4, 0.6):
        surprise = -KernelDensity(bandwidth=bandwidth).fit(rows).score_samples(rows)
        print(f"  kernel of width {bandwidth:.1f} {spearman(list(surprise), reference):10.2f}")
    print()


def print_taggers(data: Definitions, space: TagSpace) -> None:
    """Rank correlations when another tagger takes the place of the offline one."""
    reference = merged(ours(), data.texts, space).tag_sets
    others: dict[str, Tagging] = {
        "yake, 1 word": yake_raw(1),
        "yake, up to 3": yake_raw(3),
        "TF-IDF, 1 word": tfidf(1),
        "first 8 content words": first_words(),
    }
    print(f"{'against the offline tagger':28}" + "".join(f"{h:>18}" for h in ("paper", "mean")))
    for name, tagger in others.items():
        tags = merged(tagger, data.texts, space).tag_sets
        cells, within = [], []
        for rule in (insinfo, mean_insinfo):
            a, b = rule(reference), rule(tags)
            cells.append(f"{spearman(a, b):9.2f}{float(kendalltau(a, b).statistic):9.2f}")
            for category, n in Counter(data.categories).items():
                part = [i for i, other in enumerate(data.categories) if other == category]
                if n >= FEW:
                    within.append((spearman([a[i] for i in part], [b[i] for i in part]), category, n))
        print(f"{name:28}" + "".join(cells) + "   least {:.2f}: {} ({})".format(*min(within)), flush=True)
    print(f"(Spearman, Kendall; n = {len(data.texts)}; the least Spearman within a category of {FEW} or more)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--show", type=int, default=0, help="definitions to print at each end")
    args = parser.parse_args()
    encoder = SentenceEncoder(device="cpu")
    data, tasks = read_definitions(args.data, encoder)
    print(f"{len(data.texts)} distinct definitions of {tasks} tasks\n")
    space = TagSpace(lambda tags: encode(encoder, tags).vectors)
    tags = merged(ours(), data.texts, space).tag_sets
    print_correlations("the offline tagger, at most 8 tags", tags, data)
    without = merged(KeyphraseTagger(max_tags=NO_CAP), data.texts, space).tag_sets
    print_correlations("the offline tagger without a cap", without, data)
    # Between one and eight of the same tags: their number varies and says nothing.
    some = [few(instruction, i) for i, instruction in enumerate(tags)]
    print_correlations("the same tags, a random number of them left", some, data)
    print_ends(tags, data, args.show)
    print_neighbours(data)
    print_taggers(data, space)


def few(tags: frozenset[str], seed: int) -> frozenset[str]:
    """A random part of an instruction's tags, of random size."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, len(tags) + 1)) if tags else 0
    return frozenset(rng.permutation(sorted(tags))[:size].tolist())


if __name__ == "__main__":
    main()
