"""What shapes the measures that a plan is made by: the weights of instructions, InsInfo, and how tags are cleaned.

InsInfo has variants: a function in `inscl.core.insinfo` and a line in `INSINFO` each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo
from inscl.errors import PlanError
from inscl.suggest import suggest
from inscl.tags.clean import DEFAULT_MIN_SAMPLES, DEFAULT_RADIUS, radius_for

_WEIGHTS = ("frequency", "uniform")
DEFAULT_INSINFO = "paper"


@dataclass(frozen=True)
class _Measure:
    """A way to measure how much each instruction of a pool says."""

    about: str
    of: Literal["tags", "embeddings"]
    score: Callable[..., list[float]]  # of the merged tags, or the embeddings, of all instructions


INSINFO: Mapping[str, _Measure] = {
    "paper": _Measure("rarity of its tags, summed (the paper)", "tags", insinfo),
    "mean": _Measure("rarity per tag, which does not grow with their number", "tags", mean_insinfo),
    "density": _Measure("distance to the nearest other instructions, without tags", "embeddings", density_insinfo),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What shapes the measures. All of it stands in the plan.

    Raises
    ------
    PlanError
        For an unknown word.
    """

    weights: str = "frequency"  # of an instruction in its task's distribution: "frequency" or "uniform"
    radius: float = DEFAULT_RADIUS  # cosine distance within which tags merge
    min_samples: int = DEFAULT_MIN_SAMPLES
    language: str = "en"  # of the tags
    insinfo: str = DEFAULT_INSINFO  # a name in `INSINFO`

    @classmethod
    def for_encoder(cls, encoder: str, *, weights: str = "frequency", insinfo: str = DEFAULT_INSINFO) -> Self:
        """Settings with the merging radius that was calibrated for an encoder, by its identity."""
        return cls(weights=weights, insinfo=insinfo, radius=radius_for(encoder) or DEFAULT_RADIUS)

    def __post_init__(self) -> None:
        if self.weights not in _WEIGHTS:
            raise PlanError(f"The weights are '{self.weights}'; wanted one of {', '.join(_WEIGHTS)}.")
        if self.insinfo not in INSINFO:
            hint = suggest(self.insinfo, INSINFO)
            raise PlanError(f"There is no InsInfo '{self.insinfo}'; wanted one of {', '.join(INSINFO)}.{hint}")
