"""A result for continuous integration: JUnit XML and Markdown. Names of tasks are strangers' text in both."""

import re
from xml.etree import ElementTree

from inscl.check.result import CheckResult, TaskCheck

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "cannot tell": "⚠️ cannot tell"}


def junit(result: CheckResult) -> str:
    """One test case per task: failed, passed, or where the rows cannot tell skipped, or failed if that is asked for.

    The schema is the one that Jenkins, GitLab and GitHub's actions read: ``testsuites``, ``testsuite``, ``testcase``.
    """
    undecided = result.count("cannot tell")
    fails = result.limits.undecided == "fail"
    counts = {
        "tests": len(result.findings),
        "failures": result.count("fail") + (undecided if fails else 0),
        "errors": 0,
        "skipped": 0 if fails else undecided,
        "time": 0,
    }
    numbers = {key: str(value) for key, value in counts.items()}
    root = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "inscl check", **numbers})
    for found in result.findings:
        _case(suite, found, result)
    if result.remarks:
        ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(result.remarks))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, found: TaskCheck, result: CheckResult) -> None:
    named = {"classname": "inscl.check", "name": _xml(found.name), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", named)
    reason = _xml(found.reason(result.limits))
    said = f"cannot tell: {reason}" if found.outcome == "cannot tell" else reason
    if found.outcome == "pass":
        ElementTree.SubElement(case, "system-out").text = reason
    elif found.outcome == "cannot tell" and result.limits.undecided == "pass":
        ElementTree.SubElement(case, "skipped", {"message": said})
    else:
        failure = ElementTree.SubElement(case, "failure", {"message": said, "type": "drop"})
        failure.text = _xml(f"{said}\nmodel: {result.model}\nreference: {result.reference}")


def markdown(result: CheckResult) -> str:
    """A heading, a table with a line per task, and the reasons of what did not pass."""
    lines = [
        f"### {_SIGNS[result.outcome]}: `inscl check`",
        "",
        f"{text(result.model)} against {text(result.reference)}: {text(summary(result))}",
        "",
        "| task | before | after | change | bounds | rows | outcome |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(_row(found) for found in result.findings),
    ]
    reasons = [f"- {text(line)}" for line in told(result)]
    notes = [f"- {text(remark)}" for remark in result.remarks]
    return "\n".join([*lines, *(["", *reasons] if reasons else []), *(["", *notes] if notes else [])]) + "\n"


def summary(result: CheckResult) -> str:
    """The counts, and what was allowed, in one line."""
    limits, counts = result.limits, {name: result.count(name) for name in ("fail", "pass", "cannot tell")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return (
        f"{said}; a drop of {limits.max_drop:g} points of {result.score} x 100 is allowed, one of {limits.noticed:g} "
        f"must not pass"
    )


def told(result: CheckResult) -> list[str]:
    """A line for each task that did not pass, or passed although more was measured than is allowed."""
    return [
        f"{found.name}: {found.outcome}: {found.reason(result.limits)}"
        for found in result.findings
        if found.outcome != "pass" or found.over(result.limits)
    ]


def cells(found: TaskCheck) -> tuple[str, str, str, str, str, str, str]:
    """Name, before, after, change, bounds, rows and outcome; the change of a perplexity is in percent."""
    rows = f"{found.rows}" + (f" of {found.rows + left}" if (left := found.changed + found.missing) else "")
    if (change := found.change) is None:
        return found.name, "", "", "", "", rows, found.outcome
    # A score that fell has a minus before it; a perplexity that rose has a plus.
    sign, unit = (1, " %") if found.general else (-1, "")
    low, high = sorted((sign * change.low, sign * change.high))
    bounds = f"{low:+z.1f} … {high:+z.1f}{unit}"
    shown = f"{sign * change.worse:+z.1f}{unit}"
    return found.name, f"{change.before:.1f}", f"{change.after:.1f}", shown, bounds, rows, found.outcome


def text(plain: str) -> str:
    """Strangers' text as Markdown that shows it as it is, on one line.

    >>> print(text("a|b <i>`x`"))
    a\\|b &lt;i&gt;\\`x\\`
    """
    line = " ".join(plain.split())
    line = "".join(c if c.isprintable() else "\ufffd" for c in line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$@])", r"\\\1", line)


def _row(found: TaskCheck) -> str:
    name, *numbers, outcome = cells(found)
    return f"| {text(name)} | {' | '.join(numbers)} | {_SIGNS[outcome]} |"


def _xml(plain: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", plain)
