"""A causal language model on this machine that answers questions, in batches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inscl.llm.client import Question, question_key
from inscl.llm.replies import Replies, Reply

if TYPE_CHECKING:
    from inscl.models.loading import LoadedModel

_AT_ONCE = 64  # questions whose answers are stored together


class LocalModel:
    """Answers by greedy decoding; stored as they come, so that a killed run goes on.

    Parameters
    ----------
    model : str
        A folder, a Hub id, or `smollm2-135m` (see `inscl.models.loading`). Loaded when the first question is asked.
    store : Path, optional
        File of replies: what stands there is not asked again. None keeps them in memory.
    most_tokens : int
        Limit of an answer.
    dtype : {"auto", "float32", "bfloat16"}
    """

    def __init__(self, model: str, store: Path | None = None, *, most_tokens: int = 256, dtype: str = "auto") -> None:
        from inscl.models.loading import identity

        self.model = identity(model)
        self._name, self._replies = model, Replies(store)
        self._most_tokens, self._dtype = most_tokens, dtype
        self._loaded: LoadedModel | None = None

    def ask(self, questions: Sequence[Question], progress: Callable[[int, int], None] | None = None) -> list[Reply]:
        """A reply to each question, in their order; equal questions are asked once.

        Raises
        ------
        InsclError
            If the model cannot be loaded.
        """
        keys = [question_key(question, self.model, self._most_tokens) for question in questions]
        with self._replies as replies:
            todo = [(key, q) for key, q in dict(zip(keys, questions, strict=True)).items() if key not in replies]
            total = len(set(keys))
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                before = total - len(todo) + start

                def tell(done: int, _: int, before: int = before) -> None:
                    if progress:
                        progress(before + done, total)

                for (key, question), reply in zip(part, self._answer([q for _, q in part], tell), strict=True):
                    replies.keep(key, reply, question.about)
            return [replies[key] for key in keys]

    def _answer(self, questions: Sequence[Question], tell: Callable[[int, int], None]) -> list[Reply]:
        from inscl.models.generate import Prompt, batch_limits, generate

        model = self._load()
        weights, tokenizer = model.model, model.tokenizer
        room = getattr(weights.config.get_text_config(), "max_position_embeddings", None) or 1 << 20
        prompts = [Prompt(_ids(question, tokenizer), self._most_tokens) for question in questions]
        fits = [len(prompt.ids) + prompt.limit <= room for prompt in prompts]
        found = iter(
            generate(
                weights,
                [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit],
                end_ids=model.ends | ({tokenizer.eos_token_id} - {None}),
                pad_id=tokenizer.pad_token_id,
                progress=tell,
                **batch_limits(weights),
            )
        )
        replies = []
        for prompt, fit in zip(prompts, fits, strict=True):
            if not fit:
                replies.append(Reply("", f"the question is longer than the {room} tokens that the model reads"))
                continue
            answer = next(found)
            text = str(tokenizer.decode(answer.ids, skip_special_tokens=True))
            replies.append(Reply(text, "", len(prompt.ids), len(answer.ids), answer.capped))
        return replies

    def _load(self) -> "LoadedModel":
        if self._loaded is None:
            from inscl.models.loading import load
            from inscl.models.precision import ready

            self._loaded = ready(load(self._name), self._dtype)
        return self._loaded


def _ids(question: Question, tokenizer: Any) -> list[int]:
    """The question as the model's own chat, or as plain text where it has none."""
    turns = [dict(message) for message in question.messages]
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
        return list(ids)
    text = "\n\n".join(turn["content"] for turn in turns)
    return list(tokenizer(text + ("" if len(turns) == 1 else "\n\nJSON:"))["input_ids"])
