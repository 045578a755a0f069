"""What one plan says, as data: the same for a plan, before anything is trained, as `facts` for a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from inscl.replay.plan import Plan
from inscl.report.replayed import InsInfoFacts, InstructionFacts
from inscl.report.verdict import Sentence
from inscl.report.words import thousands


@dataclass(frozen=True, kw_only=True)
class PlanTask:
    """What is replayed of one earlier task, and why so much."""

    name: str
    distance: float | None
    share: float  # per cent of the budget, before caps and rounding
    count: int
    available: int
    tokens: int
    all_instructions: int
    listed: tuple[InstructionFacts, ...]  # those with a replayed row, the most rows first


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """A plan's report."""

    name: str
    stage: int
    strategy: str
    seed: int
    budget: str
    new_rows: int
    new_tokens: int
    count: int
    tokens: int
    tasks: tuple[PlanTask, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    hashes: Mapping[str, str]
    versions: Mapping[str, str]
    by_distance: bool
    informed: bool  # whether instructions have an InsInfo
    tagged: bool

    @classmethod
    def of(cls, source: Plan | str | Path) -> Self:
        """What a plan would replay, and why.

        Raises
        ------
        PlanError
            If the file is no plan.
        """
        plan = source if isinstance(source, Plan) else Plan.read(source)
        chosen = list(InstructionFacts.chosen_by(plan))
        measured = [i for task in plan.tasks for i in task.instructions]
        return cls(
            name=plan.name,
            stage=plan.stage,
            strategy=plan.strategy,
            seed=plan.seed,
            budget=plan.budget.describe(plan.new.rows),
            new_rows=plan.new.rows,
            new_tokens=plan.new.tokens,
            count=plan.count,
            tokens=plan.tokens,
            tasks=tuple(
                PlanTask(
                    name=task.name,
                    distance=task.distance,
                    share=100 * task.share,
                    count=task.count,
                    available=task.available,
                    tokens=task.tokens,
                    all_instructions=task.all_instructions,
                    listed=tuple(
                        sorted(
                            (i for i in chosen if i.task == task.name), key=lambda i: (-i.chosen, -i.insinfo, i.text)
                        )
                    ),
                )
                for task in plan.tasks
            ),
            notes=plan.notes,
            settings=plan.settings,
            hashes=plan.hashes,
            versions=plan.versions,
            by_distance=any(task.distance is not None for task in plan.tasks),
            informed=any(i.insinfo is not None for i in measured),
            tagged=any(i.tags is not None for i in measured),
        )

    def verdict(self) -> tuple[Sentence, ...]:
        """How much is replayed, what it costs, and what decided it."""
        total = self.new_rows + self.count
        rows = Sentence(
            about="Replayed",
            figure=f"{self.count:,} rows",
            words=f"of {sum(task.count > 0 for task in self.tasks)} earlier tasks beside {self.new_rows:,} new ones, "
            f"{100 * self.count / max(total, 1):.0f} % of the mixture. Budget: {self.budget}.",
        )
        tokens = self.new_tokens + self.tokens
        cost = Sentence(
            about="Cost",
            figure=f"{thousands(tokens)} tokens",
            words=f"an epoch, estimated, {tokens / max(self.new_tokens, 1):.2f} times as many as without replay.",
        )
        if not self.tasks:
            return (Sentence(about="Replayed", figure="Nothing", words="There is no earlier task."), cost)
        most = max(self.tasks, key=lambda task: task.count)
        return rows, cost, Sentence(about="Why", figure=f"{most.share:.0f} %", words=_why(self, most))

    def insinfo(self) -> InsInfoFacts | None:
        """InsInfo of the chosen instructions, for the figure; None where the strategy has none."""
        chosen = tuple(i for task in self.tasks for i in task.listed)
        if not self.informed or not chosen:
            return None
        return InsInfoFacts(
            line=self.strategy, order="", seed=self.seed, stage=self.stage, task=self.name, instructions=chosen
        )

    def to_dict(self) -> dict[str, object]:
        """As plain data that JSON holds."""
        return asdict(self)


def _why(plan: PlanFacts, most: PlanTask) -> str:
    words = f"goes to ‘{most.name}’, the largest share"
    if most.distance is not None:
        words += f": its distance to the new task is {most.distance:.2f}, and shares grow with distance"
    if plan.informed:
        words += "; within a task, instructions with more InsInfo give more rows"
    return words + "."
