"""For the reference: a docstring's doctests are shown as code, whether or not a heading stands before them."""

from typing import Any

import griffe

HEADING = "Examples\n--------\n"


class Doctests(griffe.Extension):
    """Put the heading of NumPy's style before doctests that stand without one."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None or HEADING in obj.docstring.value or ">>> " not in obj.docstring.value:
            return
        text, prompt, doctests = obj.docstring.value.partition(">>> ")
        obj.docstring.value = f"{text}{HEADING}{prompt}{doctests}"
