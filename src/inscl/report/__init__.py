"""What a run or a plan says, for people: facts first, then figures, then one page that opens anywhere.

`summarize` reads runs into plain data (`Facts`); `figures` draws them, each figure once for page, SVG and PNG; `page`
writes the report.
"""

from inscl.report.facts import Facts
from inscl.report.reading import summarize

__all__ = ["Facts", "summarize"]
