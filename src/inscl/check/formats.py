"""A verdict for continuous integration: JUnit XML and Markdown. Names of tasks are strangers' text in both."""

import re
from xml.etree import ElementTree

from inscl.check.gate import Finding, Verdict

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "cannot tell": "⚠️ cannot tell"}


def junit(verdict: Verdict) -> str:
    """One test case per task: failed, passed, or skipped where the rows cannot tell.

    The schema is the one that Jenkins, GitLab and GitHub's actions read: ``testsuites``, ``testsuite``, ``testcase``.
    """
    counts = {
        "tests": len(verdict.findings),
        "failures": verdict.count("fail"),
        "errors": 0,
        "skipped": verdict.count("cannot tell"),
        "time": 0,
    }
    root = ElementTree.Element("testsuites", {key: str(value) for key, value in counts.items()})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": "inscl check", **{key: str(value) for key, value in counts.items()}}
    )
    for finding in verdict.findings:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "inscl.check", "name": _xml(finding.name), "time": "0"}
        )
        reason = _xml(finding.reason(verdict.limits))
        if finding.outcome == "fail":
            failure = ElementTree.SubElement(case, "failure", {"message": reason, "type": "drop"})
            failure.text = _xml(f"{reason}\nmodel: {verdict.model}\nreference: {verdict.reference}")
        elif finding.outcome == "cannot tell":
            ElementTree.SubElement(case, "skipped", {"message": f"cannot tell: {reason}"})
        else:
            ElementTree.SubElement(case, "system-out").text = reason
    if verdict.remarks:
        ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(verdict.remarks))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def markdown(verdict: Verdict) -> str:
    """A heading, a table with a line per task, and the reasons of what did not pass."""
    lines = [
        f"### {_SIGNS[verdict.outcome]}: `inscl check`",
        "",
        f"{text(verdict.model)} against {text(verdict.reference)}: {text(summary(verdict))}",
        "",
        "| task | before | after | change | bounds | rows | outcome |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(_row(finding) for finding in verdict.findings),
    ]
    reasons = [
        f"- {text(finding.name)}: {text(finding.reason(verdict.limits))}"
        for finding in verdict.findings
        if finding.outcome != "pass"
    ]
    notes = [f"- {text(remark)}" for remark in verdict.remarks]
    return "\n".join([*lines, *(["", *reasons] if reasons else []), *(["", *notes] if notes else [])]) + "\n"


def summary(verdict: Verdict) -> str:
    """The verdict in one line."""
    limits, counts = verdict.limits, {name: verdict.count(name) for name in ("fail", "pass", "cannot tell")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return (
        f"{said}; a drop of {limits.max_drop:g} points of {verdict.score} x 100 is allowed, one of {limits.noticed:g} "
        f"must not pass"
    )


def cells(finding: Finding) -> tuple[str, str, str, str, str, str, str]:
    """Name, before, after, change, bounds, rows and outcome; the change of a perplexity is in percent."""
    rows = f"{finding.rows}" + (f" of {finding.rows + left}" if (left := finding.changed + finding.missing) else "")
    if (change := finding.change) is None:
        return finding.name, "", "", "", "", rows, finding.outcome
    # A score that fell has a minus before it; a perplexity that rose has a plus.
    sign, unit = (1, " %") if finding.general else (-1, "")
    low, high = sorted((sign * change.low, sign * change.high))
    bounds = f"{low:+z.1f} … {high:+z.1f}{unit}"
    shown = f"{sign * change.worse:+z.1f}{unit}"
    return finding.name, f"{change.before:.1f}", f"{change.after:.1f}", shown, bounds, rows, finding.outcome


def text(plain: str) -> str:
    """Strangers' text as Markdown that shows it as it is, on one line.

    >>> print(text("a|b <i>`x`"))
    a\\|b &lt;i&gt;\\`x\\`
    """
    line = " ".join(plain.split())
    line = "".join(c if c.isprintable() else "\ufffd" for c in line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$@])", r"\\\1", line)


def _row(finding: Finding) -> str:
    name, *numbers, outcome = cells(finding)
    return f"| {text(name)} | {' | '.join(numbers)} | {_SIGNS[outcome]} |"


def _xml(plain: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", plain)
