"""Whether a model may be released: its scores against an earlier model's, on the same rows, task by task.

Three outcomes. *Fail*: the rows show that the true drop is larger than `max_drop`. *Pass*: they show that it is smaller
than `notice`. *Cannot tell*: they show neither, which says that there are too few. Between the two limits either is
right, as between the acceptable and the rejectable quality of a sampling inspection; docs/gate.md has the reasons and
what was simulated.
"""

from pathlib import Path

from inscl.check.assessment import Assessment, assess, read_assessment
from inscl.check.comparison import compare_assessments
from inscl.check.result import CheckResult, Tolerance
from inscl.errors import DataError
from inscl.evaluation.server import Server
from inscl.memory.memory import Memory
from inscl.models.loading import EMBEDDED
from inscl.stages.folder import StageFolder
from inscl.stages.learn import StageProgress
from inscl.training.config import StageConfig


def check(
    model: str | Path | Server,
    reference: Assessment | str | Path,
    memory: Memory,
    limits: Tolerance = Tolerance(),
    *,
    config: StageConfig | None = None,
    score: str | None = None,
    out: Path | None = None,
    progress: StageProgress = lambda doing, done, total, loss: None,
) -> CheckResult:
    """Score a model on the rows that a reference was scored on, in the same way, and compare.

    Parameters
    ----------
    model : str, Path or Server
        As for `assess`. A file of its scores is compared as it is, and so is a finished stage that scored all rows of
        the reference in the same way, unless `config` or `out` is given.
    reference : Assessment, str or Path
        What to compare with, or where `inscl.check.assessment.read_assessment` finds it. A model that nobody has scored
        is scored first.
    memory : Memory
        Where the rows are.
    limits, score
        As for `inscl.check.comparison.compare_assessments`.
    config : StageConfig, optional
        Its fields that were set go before those that the reference was scored with.
    out, progress
        As for `assess`.

    Raises
    ------
    InsclError
        If the model cannot be scored, or not compared.
    """
    if not isinstance(reference, Assessment):
        reference = _reference(reference, memory, config, progress)
    if not isinstance(model, Server) and Path(model).is_file():
        return compare_assessments(reference, read_assessment(model), limits, score=score)
    settings = _settings(reference, config)
    general = limits.max_rise is not None and not isinstance(model, Server)
    if general:
        reference = reference.with_perplexity(settings.dtype)
        general = reference.perplexity is not None
    new = None if config or out else _scored_by_its_stage(model, reference)
    if new is None:
        new = assess(
            memory, model, config=settings, only=reference.asked(), general=general, out=out, progress=progress
        )
    elif general:
        new = new.with_perplexity(settings.dtype)
    return compare_assessments(reference, new, limits, score=score)


def _reference(place: str | Path, memory: Memory, config: StageConfig | None, progress: StageProgress) -> Assessment:
    """What to compare with: what was scored already, or a bare model's scores, made now."""
    bare = (Path(place) / "config.json").exists() and StageFolder.at(Path(place)) is None
    if bare or (str(place) == EMBEDDED and not Path(place).exists()):
        return assess(memory, place, config=config or StageConfig(), progress=progress)
    return read_assessment(place)


def _settings(reference: Assessment, config: StageConfig | None) -> StageConfig:
    """How the reference was scored, but for what `config` sets."""
    settings = reference.config()
    if config is None:
        return settings
    return settings.model_copy(update={name: getattr(config, name) for name in config.model_fields_set})


def _scored_by_its_stage(model: str | Path | Server, reference: Assessment) -> Assessment | None:
    """What a model's stage scored, if that is all rows of the reference, in the same way."""
    if isinstance(model, Server):
        return None
    try:
        found = read_assessment(model)
    except DataError:
        return None
    asked = found.asked()
    all_there = all(rows <= asked.get(task, set()) for task, rows in reference.asked().items())
    return found if all_there and found.settings == reference.settings else None
