"""A model's own answers to a set of prompts: general data for later stages, made before the model is trained."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inscl.data.everyday import everyday
from inscl.data.example import Example
from inscl.errors import DataError
from inscl.evaluation.evaluate import predict
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.server import Server
from inscl.files import whole_file
from inscl.models.loading import load

_AT_ONCE = 16  # prompts whose answers are kept together, so that an interrupted call goes on after them
_ANSWERS = ".answers"  # after the file's name: the folder of what was answered so far


@dataclass(frozen=True)
class Pooled:
    """What `write_pool` wrote, and how many answers it left out."""

    rows: int
    unfinished: int
    empty: int


def read_prompts(path: Path) -> list[Example]:
    """Prompts of a file: JSON lines with `instruction` (or `prompt`) and perhaps `input`, or a prompt on each line.

    Raises
    ------
    DataError
        If it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"The prompts in '{path}' cannot be read ({error}). Name a text file or JSON lines.") from error
    found = [_prompt(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"'{path}' holds no prompt. Write one on each line.")
    return found


def _prompt(path: Path, number: int, line: str) -> Example:
    if not line.lstrip().startswith("{"):
        return Example(line.strip())
    try:
        row = json.loads(line)
        instruction, text = row.get("instruction") or row["prompt"], row.get("input") or ""
        if isinstance(instruction, str) and isinstance(text, str) and instruction.strip():
            return Example(instruction, text)
        raise TypeError("wanted texts")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Line {number} of '{path}' is no prompt ({type(error).__name__}: {error}); wanted an object with "
            "`instruction`, or a line of text. Mend the line."
        ) from error


def write_pool(
    model: str | Path | Server,
    out: Path,
    prompts: Sequence[Example] | None = None,
    *,
    max_new_tokens: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Pooled:
    """Let a model answer prompts, and write its finished answers as data for `inscl add --general`.

    Decoding is greedy, so the same model gives the same answers. What was answered lies beside the file until it is
    written: the same call after an interruption goes on.

    Parameters
    ----------
    model : str, Path or Server
        Asked through its chat template where it has one.
    out : Path
        JSON lines of `instruction`, `input` and `output`.
    prompts : sequence of Example, optional
        None: the everyday instructions that come with inscl.
    max_new_tokens : int
        An answer that is longer is left out, and so is an empty one.
    progress : callable, optional
        Told how many prompts are answered, of how many.

    Raises
    ------
    DataError
        If no answer is left.
    """
    asked = list(everyday() if prompts is None else prompts)
    source = model if isinstance(model, Server) else load(model)
    answers: list[Prediction] = []
    for start in range(0, len(asked), _AT_ONCE):  # each by itself: what `predict` is given at once may be lost at once
        found = predict(
            source,
            {str(start): asked[start : start + _AT_ONCE]},
            max_new_tokens=max_new_tokens,
            chat=isinstance(source, Server) or source.tokenizer.chat_template is not None,
            loss=False,
            out=out.with_name(out.name + _ANSWERS),
        )
        answers += found[str(start)]
        if progress is not None:
            progress(len(answers), len(asked))
    unfinished = sum(answer.capped for answer in answers)
    kept = [answer for answer in answers if answer.prediction.strip() and not answer.capped]
    if not kept:
        raise DataError(
            f"None of the {len(answers):,} answers can be used: {unfinished:,} were not finished within "
            f"{max_new_tokens} tokens, the others are empty. Raise --max-new-tokens, or ask another model."
        )
    with whole_file(out) as file:
        for answer in kept:
            row = {"instruction": answer.instruction, "input": answer.input, "output": answer.prediction.strip()}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Pooled(len(kept), unfinished, len(answers) - len(kept) - unfinished)
