"""From the folders of runs to the facts of a report.

Runs that measured the same thing (the same model, data and settings; other seeds, orders, strategies or budgets) are
pooled: their streams are streams of one experiment. Others stand side by side, and a note says what sets them apart.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from inscl.errors import InsclError
from inscl.experiments.comparison import comparisons
from inscl.experiments.run import MAY_CHANGE
from inscl.experiments.run_folder import RunFolder
from inscl.report.facts import Facts, RunFacts
from inscl.report.forgotten import ForgottenFacts
from inscl.report.lines import Experiment, MeasuredStream
from inscl.report.replayed import First, ReplayFacts

_NOT_THE_EXPERIMENT = MAY_CHANGE | {"tagger"}


def summarize(runs: str | Path | Sequence[str | Path | RunFolder]) -> Facts:
    """Read what one run or several have measured, finished or not.

    Parameters
    ----------
    runs : path or sequence of paths
        Folders of `inscl run` or `inscl demo`; or as `open_runs` gives them.

    Returns
    -------
    Facts

    Raises
    ------
    InsclError
        If a folder holds no run, or a run that has finished no stage.

    Examples
    --------
    ::

        facts = summarize("runs/first")
        facts.lines[0].gain_final.mean
    """
    folders = open_runs([runs] if isinstance(runs, str | Path) else runs)
    pools, notes = _pools(folders)
    together = _experiments(pools)
    streams = _begun(together)
    firsts = _firsts(streams)
    return Facts(
        runs=tuple(_run_facts(run) for run in folders),
        scorer=folders[0].config.scorer,
        tasks=tuple(dict.fromkeys(chain.from_iterable(run.tasks for run in folders))),
        lines=tuple(chain.from_iterable(experiment.lines for experiment in together)),
        differences=tuple(comparisons(*(experiment.contenders() for experiment in together))),
        joint=tuple(joint for experiment in together if (joint := experiment.joint())),
        streams=tuple(stream.facts for stream in streams),
        replay=ReplayFacts.of(firsts),
        forgotten=ForgottenFacts.of(folders, firsts),
        notes=(*notes, *_unfinished(folders)),
    )


def open_runs(runs: Iterable[str | Path | RunFolder]) -> list[RunFolder]:
    """The folders of runs, each under a name of its own."""
    folders = [run if isinstance(run, RunFolder) else RunFolder.read(run) for run in runs]
    for run in folders:
        if not run.streams:
            raise InsclError(
                f"The run '{run.path}' has not begun its streams yet: there is nothing to report. "
                "Run the same `inscl run` command again to go on."
            )
        if sum(other.name == run.name for other in folders) > 1:
            run.name = str(run.path)
    return folders


def _experiments(pools: Sequence[Sequence[RunFolder]]) -> list[Experiment]:
    """An experiment of each pool, named after its runs where there are several."""
    named = len(pools) > 1
    return [Experiment(pool, " + ".join(run.name for run in pool) if named else "") for pool in pools]


def _begun(experiments: Iterable[Experiment]) -> list[MeasuredStream]:
    """The streams with a finished stage, of which a report needs one."""
    experiments = list(experiments)
    streams = [stream for experiment in experiments for stream in experiment.streams]
    if not streams:
        raise InsclError(
            f"'{experiments[0].runs[0].name}' has not finished a stage of any stream yet: there is nothing to report. "
            "Run the same `inscl run` command again to go on."
        )
    return streams


def _firsts(streams: Iterable[MeasuredStream]) -> list[First]:
    """The first stream of each line and order."""
    found: dict[tuple[str, str], First] = {}
    for stream in streams:
        label = stream.facts.line
        found.setdefault((label, stream.facts.order), (label, stream.run, stream.folder))
    return list(found.values())


def _unfinished(runs: Iterable[RunFolder]) -> Iterable[str]:
    for run in runs:
        if not run.finished:
            done, wanted = run.stages_done()
            yield (
                f"The run '{run.name}' is not finished: {done} of {wanted} stages are scored. What is there is shown; "
                "the same `inscl run` command goes on with it."
            )


def _run_facts(run: RunFolder) -> RunFacts:
    rows = [row["n"] for row in run.rows if row["metric"] == run.config.scorer and row["n"]]
    done, wanted = run.stages_done()
    return RunFacts(
        name=run.name,
        model=run.config.model,
        scorer=run.config.scorer,
        finished=run.finished,
        stages_done=done,
        stages=wanted,
        dtype=run.record.get("dtype"),
        orders=tuple(dict.fromkeys(stream.key.order for stream in run.streams)),
        seeds=tuple(dict.fromkeys(stream.key.seed for stream in run.streams)),
        expert_seeds=tuple(run.config.experts.seeds) if run.config.experts else (),
        test_rows=(min(rows, default=0), max(rows, default=0)),
        versions=run.record.get("versions", {}),
        hardware=run.record.get("hardware", {}),
        tasks=run.record.get("tasks", {}),
        config=run.record["config"],
    )


def _pools(runs: Sequence[RunFolder]) -> tuple[list[list[RunFolder]], list[str]]:
    """Runs that are one experiment, and what sets the others apart."""
    pools: list[list[RunFolder]] = []
    notes = []
    for run in runs:
        reasons = [_apart(pool, run) for pool in pools]
        home = next((pool for pool, reason in zip(pools, reasons, strict=True) if not reason), None)
        if home is None:
            pools.append([run])
            notes += [
                f"'{run.name}' stands beside '{pool[0].name}' and is not pooled with it: {reason}."
                for pool, reason in zip(pools, reasons, strict=False)
            ]
        else:
            home.append(run)
    notes += [
        f"Pooled as one experiment: {', '.join(repr(run.name) for run in pool)}. Each stream is measured against the "
        "experts of its own run."
        for pool in pools
        if len(pool) > 1
    ]
    return pools, notes


def _apart(pool: Sequence[RunFolder], run: RunFolder) -> str:
    """Why a run is another experiment than a pool, or ''."""
    first = pool[0]
    a, b = first.record["config"], run.record["config"]
    changed = sorted(key for key in a.keys() & b.keys() - _NOT_THE_EXPERIMENT if a[key] != b[key])
    if changed:
        return f"other settings ({', '.join(changed)})"
    if other := _other_data(first, run):
        return f"other data for {', '.join(map(repr, other[:3]))}" + (" and more" if other[3:] else "")
    known = {stream.key for member in pool for stream in member.streams}
    if any(stream.key in known for stream in run.streams):
        return "both have a stream of the same strategy, budget, order and seed"
    return ""


def _other_data(first: RunFolder, run: RunFolder) -> list[str]:
    """The tasks of one run whose data the other has not, or not the same."""
    mine, there = ({t: info["content"] for t, info in r.record.get("tasks", {}).items()} for r in (first, run))
    return [task for task, content in mine.items() if there.get(task) != content]
