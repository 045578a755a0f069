"""The first lines of a report, in plain words: was it forgotten, what did it cost, and can one trust it."""

from collections.abc import Iterator
from dataclasses import dataclass

from inscl.core.stats import Estimate
from inscl.experiments.comparison import Comparison
from inscl.report.facts import Facts, LineFacts
from inscl.report.words import duration, minus, plural, thousands


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One line of the verdict: what it is about, the number to see first, and the words."""

    about: str
    figure: str
    words: str


def verdict(facts: Facts) -> tuple[Sentence, ...]:
    """Kept, forgotten, cost, and how sure that is, of the line that keeps most."""
    best = facts.best
    if best is None:
        done = max((len(stream.scores) for stream in facts.streams), default=0)
        words = f"No stream has reached its last stage; the furthest has {plural(done, 'stage')}."
        return (Sentence(about="Kept", figure="–", words=words),)
    return tuple(_sentences(facts, best))


def _sentences(facts: Facts, best: LineFacts) -> Iterator[Sentence]:
    alike = [line for line in facts.lines if line.pool == best.pool and line.streams and line != best]
    none = next((line for line in alike if line.strategy == "none"), None)
    yield from _kept(best, none)
    if best.change:
        yield _forgotten(best, best.change, none)
    if best.tokens is not None:
        yield _cost(best, none)
    yield _sure(facts, best)


def _kept(best: LineFacts, none: LineFacts | None) -> Iterator[Sentence]:
    if best.gain_final:
        base = f" Without replay: {none.gain_final.mean:.1f}\u00a0%." if none and none.gain_final else ""
        yield Sentence(
            about="Kept",
            figure=f"{best.gain_final.mean:.1f}\u00a0%",
            words=f"of what experts score on the earlier tasks, with {best.label} {_interval(best.gain_final)}.{base}",
        )
    elif best.performance:
        yield Sentence(
            about="Kept",
            figure=f"{best.performance.mean:.1f}",
            words=f"points is the mean score over all tasks, with {best.label} {_interval(best.performance)}. There "
            "are no experts to compare with.",
        )


def _forgotten(best: LineFacts, change: Estimate, none: LineFacts | None) -> Sentence:
    worst = min(best.tasks, key=lambda task: task.change.mean)
    verb = "lost" if change.mean <= 0 else "gained"
    flipped = change if change.mean > 0 else -change
    words = f"{verb} by a task on average since it was learnt {_interval(flipped)}."
    if worst.change.mean < 0:
        words += f" Most by ‘{worst.task}’: {-worst.change.mean:.1f}."
    if none and none.change:
        words += f" Without replay: {minus(-none.change.mean)}."
    return Sentence(about="Forgotten", figure=f"{minus(flipped.mean)} points", words=words)


def _cost(best: LineFacts, none: LineFacts | None) -> Sentence:
    tokens = best.tokens or 0.0
    words = f"trained on in a stream with {best.label}"
    if none and none.tokens:
        words += f", {tokens / none.tokens:.2f} times as many as without replay"
    if best.replayed is not None:
        words += f"; {best.replayed:.0f}\u00a0% of a stage's rows are replayed"
    if best.seconds is not None:
        words += f"; {duration(best.seconds)} of training"
    return Sentence(about="Cost", figure=f"{thousands(tokens)} tokens", words=words + ".")


def _sure(facts: Facts, best: LineFacts) -> Sentence:
    """Whether the best is told apart from the next best."""
    streams = plural(best.streams, "stream")
    beside = [line for line in facts.lines if line != best and line.pool == best.pool]
    others = [line for line in beside if line.gain_final]
    if not others or not best.gain_final:
        nothing = "no Relative Gain to measure a difference by" if beside else "nothing to compare it with"
        return Sentence(about="Certainty", figure=streams, words=f"and {nothing}.")
    rival = max(others, key=_gain)
    found = _between(facts, best, rival)
    if found is None:
        words = f"{best.label} and {rival.label} have no stream in common, so they are not compared."
        return Sentence(about="Certainty", figure=streams, words=words)
    return _told_apart(best, rival, found)


def _between(facts: Facts, line: LineFacts, other: LineFacts) -> Comparison | None:
    return next((d for d in facts.differences if {d.line, d.baseline} == {line.label, other.label}), None)


def _gain(line: LineFacts) -> float:
    return line.gain_final.mean if line.gain_final else 0.0


def _told_apart(best: LineFacts, rival: LineFacts, found: Comparison) -> Sentence:
    paired = found.of(best.label)
    against = f"{best.label} leads {rival.label} by {paired.mean:.1f} points of Relative Gain"
    streams = plural(paired.n, "stream")
    if paired.shown is None:
        few = "One stream says" if paired.n == 1 else f"{paired.n} streams say"
        words = f"{against}. {few} little about other orders and seeds: run more before you choose."
        return Sentence(about="Certainty", figure=streams, words=words)
    words = f"{against} {_interval(paired)}"
    if not found.counts or paired.mean < 0:
        return Sentence(about="Certainty", figure=streams, words=f"{words}: these do not tell them apart.")
    return Sentence(
        about="Certainty", figure=streams, words=f"{words}. It was chosen as the best of them, so expect a little less."
    )


def _interval(found: Estimate) -> str:
    """An interval in words, in brackets.

    >>> _interval(Estimate(mean=1, low=-0.5, high=2.25, n=3, over="streams"))
    '(95\\xa0% interval −0.5 to 2.2, over 3 streams)'
    >>> _interval(Estimate(mean=1, low=-0.5, high=2.25, n=12, clusters=2, over="test rows"))
    '(one stream, with too few test rows or instructions to tell)'
    """
    ends = found.shown
    if ends is None and found.over == "test rows":
        return "(one stream, with too few test rows or instructions to tell)"
    if ends is None:
        return f"({plural(found.units, 'stream')}, too few for an interval)"
    over = plural(found.n, "stream") if found.over == "streams" else "the test rows of one stream"
    return f"(95\u00a0% interval {minus(ends[0])} to {minus(ends[1])}, over {over})"
