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
        f"{_shown(result.model)} against {_shown(result.reference)}: {_shown(result.summary)}",
        "",
        "| task | before | after | change | bounds | rows | outcome |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(_row(found) for found in result.findings),
    ]
    reasons = [f"- {_shown(line)}" for line in result.reasons()]
    notes = [f"- {_shown(remark)}" for remark in result.remarks]
    return "\n".join([*lines, *(["", *reasons] if reasons else []), *(["", *notes] if notes else [])]) + "\n"


def _shown(plain: str) -> str:
    """Strangers' text as Markdown that shows it as it is, on one line.

    >>> print(_shown("a|b <i>`x`"))
    a\\|b &lt;i&gt;\\`x\\`
    """
    line = " ".join(plain.split())
    line = "".join(c if c.isprintable() else "\ufffd" for c in line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$@])", r"\\\1", line)


def _row(found: TaskCheck) -> str:
    name, *numbers, outcome = found.cells()
    return f"| {_shown(name)} | {' | '.join(numbers)} | {_SIGNS[outcome]} |"


def _xml(plain: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", plain)
