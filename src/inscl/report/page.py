"""From facts to files: one page that opens anywhere, its figures as SVG and PNG, and the answers task by task."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from inscl.core.stats import ENOUGH_CLUSTERS, ENOUGH_ROWS, ENOUGH_STREAMS
from inscl.errors import ConfigError, InsclError, require
from inscl.experiments.comparison import Comparison
from inscl.experiments.results import StreamKey
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.files import whole_file
from inscl.forgetting.fates import PastTask, RowFate
from inscl.report import figures as draw
from inscl.report.facts import Facts, LineFacts, RunFacts
from inscl.report.figures import Figure
from inscl.report.figures.draw import rules, variables
from inscl.report.forgotten import ForgottenExample
from inscl.report.instruction_map import InstructionMap
from inscl.report.plan import PlanFacts
from inscl.report.reading import open_runs, summarize
from inscl.report.stage import CHANGED_BY, StageFacts, StageTask
from inscl.report.verdict import verdict
from inscl.report.words import duration, minus, p_value, spread, thousands

KINDS = ("svg", "png")
_ENOUGH_ROWS = f"{ENOUGH_ROWS} rows of {ENOUGH_CLUSTERS} instructions"  # what an interval over test rows needs
_EXAMPLES_SHOWN = 60
_FEW_DIFFERENCES = 10  # more are folded away, but for those of the best
_PNG_ZOOM = 2.0
_Drawn = Mapping[str, Figure | Sequence[Figure] | None]  # by their names in a template
_OURS = re.compile(
    r"((scores|budget|insinfo)-\d+|relative-gain|forgetting|distances|map|kinds|shares|headline|frontier|trend|loss)\.(svg|png)"
)


def write_run_report(
    runs: Sequence[str | Path], out: str | Path, *, figures: Sequence[str] = KINDS, facts: Facts | None = None
) -> Path:
    """Write the report of one run or several.

    Parameters
    ----------
    runs : sequence of paths
        Folders of `inscl run` or `inscl demo`, finished or not.
    out : path
        Folder for ``index.html``, ``figures/``, a page of answers per task, and the configuration of each run. What
        an earlier report wrote there is replaced.
    figures : sequence of "svg" or "png"
        Files to write of each figure.
    facts : Facts, optional
        Of these runs, where they are known.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InsclError
        If a folder holds no run, or nothing is finished in it.
    """
    folders, out = open_runs(runs), Path(out)
    facts = facts or summarize(folders)
    _check(figures)
    best = facts.best
    drawn = _run_figures(facts, best.label if best else "")
    out.mkdir(parents=True, exist_ok=True)
    pages = _write_answers(out, facts, folders)
    examples, shown = _by_task(facts)
    return _write_report(
        out,
        "run.html.j2",
        drawn,
        figures,
        facts=facts,
        title=", ".join(run.name for run in facts.runs),
        models=list(dict.fromkeys(run.model for run in facts.runs)),
        folder=folders[0].path,
        verdict=verdict(facts),
        best=best,
        enough=ENOUGH_STREAMS,
        enough_rows=_ENOUGH_ROWS,
        sections=_sections(facts),
        examples=examples,
        shown=shown,
        pages=pages,
        configs=_write_configs(out, facts.runs),
        tasks_of=_tasks_of,
        **_lines_shown(facts.lines),
        **_differences(facts.differences, best.label if best else ""),
    )


def _run_figures(facts: Facts, best: str) -> _Drawn:
    """The figures of a run's page by their names in its template; the line `best` is shown first."""
    return {
        "headline": draw.headline_figure(facts),
        "frontier": draw.frontier_figure(facts),
        "scores": draw.score_figures(facts, best),
        "gain": draw.gain_figure(facts),
        "change": draw.change_figure(facts),
        "distances": draw.distance_figure(facts),
        "budgets": draw.budget_figures(facts, best),
        "infos": draw.insinfo_figures(facts.replay.insinfo),
        "kinds": draw.kinds_figure(facts),
    }


def write_plan_report(
    plan: str | Path,
    out: str | Path,
    *,
    figures: Sequence[str] = KINDS,
    facts: PlanFacts | None = None,
    instruction_map: InstructionMap | None = None,
) -> Path:
    """Write the report of a plan: why these examples, before anything is trained.

    Arguments and result are those of `write_run_report`, for the file of a plan; with `instruction_map`, the page shows
    it.
    """
    facts, out = facts or PlanFacts.of(plan), Path(out)
    _check(figures)
    info = facts.insinfo()
    drawn: _Drawn = {
        "shares": draw.share_figure(facts),
        "map": draw.map_figure(instruction_map),
        "info": draw.insinfo_figures([info])[0] if info else None,
    }
    named = {
        "verdict": "In short",
        "shares": "Shares",
        "map": "Map",
        "insinfo": "InsInfo",
        "instructions": "Instructions",
    }
    shown = {"shares": facts.tasks, "map": instruction_map, "insinfo": info, "instructions": facts.tasks}
    sections = [(key, name) for key, name in named.items() if shown.get(key, True)]
    return _write_report(
        out,
        "plan.html.j2",
        drawn,
        figures,
        plan=facts,
        verdict=facts.verdict(),
        sections=[*sections, ("provenance", "Provenance")],
    )


def write_stage_report(
    stage: str | Path, out: str | Path, *, figures: Sequence[str] = KINDS, facts: StageFacts | None = None
) -> Path:
    """Write the report of a stage of `inscl learn`, as `write_run_report` does: what changed, and the months before."""
    facts, out = facts or StageFacts.of(stage), Path(out)
    _check(figures)
    drawn: _Drawn = {
        "trend": draw.trend_figure(facts),
        "shares": draw.share_figure(facts.plan) if facts.plan else None,
        "loss": draw.loss_figure(facts),
    }
    named = {"lost": "Lost answers", "gained": "Gained answers", "replay": "Replay", "loss": "Training"}
    shown = {"lost": facts.lost, "gained": facts.gained, "replay": drawn["shares"], "loss": drawn["loss"]}
    return _write_report(
        out,
        "stage.html.j2",
        drawn,
        figures,
        stage=facts,
        verdict=facts.verdict(),
        tasks=[_stage_row(task) for task in facts.tasks],
        sections=[("verdict", "In short"), ("tasks", "Tasks"), *[(key, named[key]) for key in named if shown[key]]],
        enough_rows=_ENOUGH_ROWS,
        moved=100 * CHANGED_BY,
        most=_EXAMPLES_SHOWN,
    )


def _stage_row(task: StageTask) -> tuple[str, ...]:
    before = minus(task.before)
    change = (minus(task.change.mean, sign=True), spread(task.change, sign=True) or "–")
    name = f"{task.task} (new)" if task.new else task.task
    return name, before, minus(task.after.mean), spread(task.after) or "–", *change, str(task.after.n)


# ---------------------------------------------------------------- the page


def _write_report(out: Path, template: str, drawn: _Drawn, figures: Sequence[str], **content: object) -> Path:
    """Write a page, then its figures as files of the kinds `figures`; the page's path."""
    page = _render(template, files=figures, **content, **drawn)
    out.mkdir(parents=True, exist_ok=True)
    _write_figures(out / "figures", _flat(drawn.values()), figures)
    _write(out / "index.html", page)
    return out / "index.html"


def _render(template: str, **content: object) -> str:
    """A page; whatever is not Markup is escaped."""
    from inscl import __version__

    environment = Environment(
        loader=PackageLoader("inscl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(minus=minus, thousands=thousands, duration=duration, spread=spread)
    script, style = _asset("script.js"), _asset("style.css").replace("%VARIABLES%", variables())
    return environment.get_template(template).render(
        **content,
        version=__version__,
        script=Markup(script),
        style=Markup(style + rules()),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _asset(name: str) -> str:
    return (files("inscl.report") / "templates" / name).read_text(encoding="utf-8").strip()


def _sections(facts: Facts) -> list[tuple[str, str]]:
    named = {
        "verdict": "Verdict",
        "scores": "Scores",
        "gain": "Relative Gain",
        "forgetting": "Tasks",
        "replay": "Replay",
        "kinds": "Forgotten answers",
        "tags": "Tags",
        "provenance": "Provenance",
    }
    there = {
        "gain": any(line.gains for line in facts.lines),
        "forgetting": any(line.tasks for line in facts.lines),
        "tags": facts.replay.tags,
    }
    return [(key, name) for key, name in named.items() if there.get(key, True)]


def _lines_shown(lines: Sequence[LineFacts]) -> dict[str, int]:
    """How many streams and strategies there are, and which columns the table of the lines has."""
    return {
        "of_joint": any(line.of_joint for line in lines),
        "equal": any(line.gain_equal_tokens for line in lines),
        "long": any(len(line.gains) > 5 for line in lines),
        "streams": max((line.streams for line in lines), default=0),
        "strategies": len({line.strategy for line in lines}),
    }


def _differences(found: Sequence[Comparison], best: str) -> dict[str, list[tuple[str, ...]]]:
    """The differences that are shown, and those that are folded away: where there are many, all but the best's."""
    few = len(found) <= _FEW_DIFFERENCES
    told = [few or best in (d.line, d.baseline) for d in found]
    return {
        "differences": [_difference(d) for d, is_told in zip(found, told, strict=True) if is_told],
        "other_differences": [_difference(d) for d, is_told in zip(found, told, strict=True) if not is_told],
    }


def _difference(found: Comparison) -> tuple[str, ...]:
    return (
        f"{found.line} against {found.baseline}",
        minus(found.paired.mean, sign=True),
        spread(found.paired, sign=True) or "–",
        spread(found.crossed, sign=True) or "–",
        str(found.paired.n),
        p_value(found.p, enough=found.paired.enough),
    )


def _by_task(facts: Facts) -> tuple[list[tuple[str, list[tuple[str, list[ForgottenExample]]]]], int]:
    """Examples by task and line: of each of these the first, then the second, up to what a page can hold."""
    seen: dict[tuple[str, str], int] = {}
    ranked = []
    for example in facts.forgotten.examples:
        place = (example.task, example.line)
        seen[place] = seen.get(place, 0) + 1
        ranked.append((seen[place], example))
    chosen = [example for _, example in sorted(ranked, key=lambda pair: pair[0])[:_EXAMPLES_SHOWN]]
    grouped = []
    for task in facts.tasks:
        lines = [
            (line.label, found)
            for line in facts.lines
            if (found := [e for e in chosen if (e.task, e.line) == (task, line.label)])
        ]
        if lines:
            grouped.append((task, lines))
    return grouped, len(chosen)


def _tasks_of(run: RunFacts) -> list[tuple[str, ...]]:
    return [
        (task, str(info["instructions"]), *[str(info["rows"].get(side, "")) for side in ("train", "dev", "test")],
         info["content"])
        for task, info in run.tasks.items()
    ]  # fmt: skip


def _write_configs(out: Path, runs: Iterable[RunFacts]) -> list[str]:
    """The configuration of each run as YAML, in the page and as a file."""
    import yaml

    configs = [yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True) for run in runs]
    for i, text in enumerate(configs, start=1):
        _write(out / f"run-{i}.yaml", text)
    return configs


# ---------------------------------------------------------------- the answers, task by task


def _write_answers(out: Path, facts: Facts, runs: Sequence[RunFolder]) -> list[dict[str, str]]:
    """A page per task with the answers of each line's first stream; its name holds nothing of the task's."""
    pages = []
    for old in out.glob("answers-*.html"):
        old.unlink()
    first = _first_streams(facts, runs)
    for i, task in enumerate(facts.tasks, start=1):
        lines = [
            (label, f"order {stream.key.order}, seed {stream.key.seed}", rows)
            for label, _, stream in first
            for past in PastTask.at_the_end(stream)
            if past.task == task and (rows := past.answered())
        ]
        if lines:
            name = f"answers-{i:02d}.html"
            _write(out / name, _render("answers.html.j2", task=task, lines=lines, fate=_fate))
            pages.append({"file": name, "task": task})
    return pages


def _fate(row: RowFate) -> str:
    """What became of a row, as the reader may ask for it."""
    if row.history.forgotten:
        return "lost"
    return "gained" if row.history.score - row.history.best >= CHANGED_BY else "alike"


def _first_streams(facts: Facts, runs: Iterable[RunFolder]) -> list[tuple[str, RunFolder, StreamFolder]]:
    folders = {(run.name, stream.key): (run, stream) for run in runs for stream in run.streams}
    found: dict[str, tuple[str, RunFolder, StreamFolder]] = {}
    lines = {line.label: line for line in facts.lines}
    for s in facts.streams:
        key = StreamKey(lines[s.line].strategy, lines[s.line].budget, s.order, s.seed)
        if s.finished:
            found.setdefault(s.line, (s.line, *folders[s.run, key]))
    return list(found.values())


# ---------------------------------------------------------------- files


def _check(kinds: Sequence[str]) -> None:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(
            f"Figures come as {' or '.join(KINDS)}, not as '{unknown[0]}'. Give --figures {','.join(KINDS)}."
        )
    if "png" in kinds:
        require("resvg_py", extra="report", purpose="Drawing figures as PNG")


def _flat(drawn: Iterable[Figure | Sequence[Figure] | None]) -> list[Figure]:
    listed = ([item] if isinstance(item, Figure) else item or () for item in drawn)
    return [figure for figures in listed for figure in figures]


def _write_figures(folder: Path, found: Sequence[Figure], kinds: Sequence[str]) -> None:
    """Write the figures, and remove those that an earlier report left; other files there stay."""
    for old in folder.glob("*.*"):
        if _OURS.fullmatch(old.name):
            old.unlink()
    if not kinds:
        return
    folder.mkdir(exist_ok=True)
    for figure in found:
        if not figure.filed:
            continue
        svg = figure.file()
        if "svg" in kinds:
            _write(folder / f"{figure.name}.svg", svg)
        if "png" in kinds:
            with whole_file(folder / f"{figure.name}.png", "wb") as file:
                file.write(_to_png(svg))


def _to_png(svg: str) -> bytes:
    """A figure's file as PNG, twice as large.

    Raises
    ------
    InsclError
        If there is no font on the machine: the figure would have no text.
    """
    resvg = require("resvg_py", extra="report", purpose="Drawing figures as PNG")
    if not _has_font():
        raise InsclError(
            "There is no font on this machine to draw PNG figures with. Install one (Debian: fonts-dejavu-core), or "
            "give --figures svg."
        )
    return bytes(resvg.svg_to_bytes(svg_string=svg, zoom=_PNG_ZOOM, sans_serif_family="DejaVu Sans"))


def _has_font() -> bool:
    resvg: Any = require("resvg_py", extra="report", purpose="Drawing figures as PNG")
    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    letter = empty.format('<text x="2" y="16" font-family="sans-serif">M</text>')
    return bool(bytes(resvg.svg_to_bytes(svg_string=letter)) != bytes(resvg.svg_to_bytes(svg_string=empty.format(""))))


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text)
