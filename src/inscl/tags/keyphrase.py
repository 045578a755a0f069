"""The offline tagger: key phrases by YAKE, which needs no model and no corpus."""

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from inscl.errors import ConfigError

if TYPE_CHECKING:
    import yake

# Real definitions have at most a few thousand characters, and the encoder reads about 1,200. YAKE takes 15 µs a
# character, 200 where sentences are tiny: a file pasted into an instruction must not take minutes.
_READ_CHARACTERS = 8_000


@dataclass
class KeyphraseTagger:
    """Tag each instruction with its key phrases, the same in every process and whatever else is tagged.

    YAKE scores words and phrases by their case, place, frequency, spread and neighbours within the one text
    (Campos et al., 2020, "YAKE! Keyword extraction from single documents using multiple local features").
    docs/tags.md compares it with others.

    Parameters
    ----------
    language : str
        ISO 639-1 code, for the stop words. YAKE has lists for 34 languages and a neutral one for all others.
        Scripts written without spaces (Chinese, Japanese, Thai) give whole clauses as tags.
    max_tags : int
        Tags per instruction at most. InsInfo sums over tags: without a cap, it mostly measures length.
    max_words : int
        Words per tag at most.

    Examples
    --------
    >>> KeyphraseTagger(max_tags=2)(["Classify the sentiment of a movie review.", "🙂"])
    [['movie review', 'Classify'], []]
    """

    language: str = "en"
    max_tags: int = 8
    max_words: int = 2
    _extractor: "yake.KeywordExtractor | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_tags < 1 or self.max_words < 1:
            raise ConfigError(
                f"`max_tags` and `max_words` must be at least 1, got {self.max_tags} and {self.max_words}."
            )

    @property
    def identity(self) -> str:
        """Library, version and settings."""
        settings = f"language={self.language} max_tags={self.max_tags} max_words={self.max_words}"
        return f"yake {version('yake')} {settings} read_characters={_READ_CHARACTERS}"

    def __call__(self, instructions: list[str], /) -> list[list[str]]:
        """Raw tags of each instruction, best first; only its first 8,000 characters are read."""
        tags = {text: self._tag(text[:_READ_CHARACTERS]) for text in dict.fromkeys(instructions)}
        return [list(tags[text]) for text in instructions]

    def _tag(self, text: str) -> list[str]:
        return [tag for tag, _ in self._load().extract_keywords(text)]

    def _load(self) -> Any:
        if self._extractor is None:
            import yake

            self._extractor = yake.KeywordExtractor(lan=self.language, n=self.max_words, top=self.max_tags)
        return self._extractor
