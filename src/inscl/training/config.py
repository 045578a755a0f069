"""How a stage trains and scores: its settings, the same for one stage and for each stage of a stream."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictBool

from inscl.errors import ConfigError, InsclError, require
from inscl.settings import Count, Fraction, Natural, Section, Texts, member
from inscl.training.adapters import Adapter, Adapters
from inscl.training.fields import OWNED, unknown
from inscl.yaml_text import KeyPath


def _not_owned(name: str) -> str:
    if name in OWNED:
        raise ValueError(f"inscl sets this itself: {OWNED[name]}.")
    return name


def _known_scorer(name: str) -> str:
    from inscl.core.scoring import SCORERS

    return member(name, SCORERS)


class Protect(Section):
    """What keeps the weights near the stage's start; all off by default.

    Attributes
    ----------
    freeze_bottom_layers : int
        Freeze the embeddings and this many of the lowest layers.
    l2_start, ema, interpolate : float
        See `inscl.training.protect.Protection`; not with sharded weights.
    """

    freeze_bottom_layers: Natural = 0
    l2_start: Fraction = 0.0
    ema: Fraction = 0.0
    interpolate: Fraction = 0.0


class StageConfig(Section):
    """How a stage trains and scores.

    Attributes
    ----------
    training : dict
        Any field of TRL's `SFTConfig` except those that inscl sets itself (`inscl.training.fields.OWNED`).
        ``per_device_train_batch_size`` limits the memory and changes nothing else.
    peft : dict, optional
        ``{"type": "LoraConfig", "r": 16, ...}``, any PEFT configuration; None trains all weights.
    protect : Protect
    loss : {"token", "row"}
        The mean over a step's answer tokens, or over its rows of each row's mean: then a one-word answer counts as
        much as a paragraph. Weights of rows are scaled to a mean of 1 either way.
    adapter : {"continue", "merge", "new"}
        Train the same adapter on, merge it into the weights after the stage, or put a new one on the earlier
        ones, which stay as they are. OSF always merges: it protects only what it decomposes anew.
    batch_size : int
        Rows of an optimiser step over all devices.
    max_length : int
        Most tokens of a training row, and of a prompt; longer ones lose the end of their input.
    kept : {"auto", "off", "float32", "bfloat16", "float16"}
        What leaves frozen layers is computed once per row and kept, see `inscl.models.kept`: "auto" as it is computed,
        where nothing stands in the way; a precision demands it.
    padding_free : bool
        Compute the rows of a device's batch as one sequence without padding, where the model keeps them apart.
    max_new_tokens : int, optional
        Tokens of an answer; None takes them from the training answers.
    scorer : str
        A name in `inscl.core.scoring.SCORERS`.
    dtype : {"auto", "float32", "bfloat16"}
        Of the computation; all weights that are trained are float32. See `inscl.models.precision.choose_dtype`.
    report_to : tuple of str
        Trackers, as the trainer names them.
    """

    nested: ClassVar[Mapping[str | int, type[Section]]] = {"protect": Protect}

    training: dict[Annotated[str, AfterValidator(_not_owned)], Any] = Field(default_factory=dict)
    peft: dict[str, Any] | None = None
    protect: Protect = Protect()
    loss: Literal["token", "row"] = "token"
    adapter: Adapter = "continue"
    batch_size: Count = 32
    max_length: Count = 1024
    kept: Literal["auto", "off", "float32", "bfloat16", "float16"] = "auto"
    padding_free: StrictBool = False
    max_new_tokens: Count | None = None
    scorer: Annotated[str, AfterValidator(_known_scorer)] = "rouge_l"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    report_to: Texts = ()

    @classmethod
    def deeper_problems(cls, data: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
        """Fields that TRL and PEFT do not have."""
        training, peft = (data[key] if isinstance(data.get(key), dict) else {} for key in ("training", "peft"))
        found: list[tuple[KeyPath, str]] = []
        if training:
            with suppress(InsclError):
                found += [(("training", name), text) for name, text in unknown(training).items()]
        if peft:
            try:
                Adapters(peft).configuration()
            except InsclError as error:
                found.append((("peft",), str(error)))
        return found

    @property
    def adapters(self) -> Adapters:
        """Which adapter is trained, and what becomes of it after the stage."""
        return Adapters(self.peft, self.adapter)

    @property
    def fields(self) -> dict[str, Any]:
        """What the trainer is given: `training`, with the trackers."""
        return {**self.training, **({"report_to": list(self.report_to)} if self.report_to else {})}

    def plain(self) -> dict[str, Any]:
        """The settings of the stage as data that JSON holds, without what a stream adds to them."""
        return self.model_dump(mode="json", include=set(StageConfig.model_fields))

    def check(self) -> None:
        """Refuse fields that TRL or PEFT does not have, before anything is computed.

        Raises
        ------
        ConfigError
            That names all such fields.
        """
        require("trl", extra="train", purpose="Training")
        if problems := self.deeper_problems({"training": self.training, "peft": self.peft}):
            raise ConfigError(" ".join(text for _, text in problems))


def stage_config(text: str = "", name: str = "stage.yaml", **changes: Any) -> StageConfig:
    """How a stage trains and scores, from YAML.

    Parameters
    ----------
    text : str
        YAML whose keys are the attributes of `StageConfig`.
    name : str
        How a message calls the text.
    **changes
        Attributes that take the place of those in the text; None changes nothing, and `training` is added to.

    Raises
    ------
    ConfigError
        With one line per problem.

    Examples
    --------
    >>> stage_config("batch_size: 8\\ntraining: {learning_rate: 1e-4}").batch_size
    8
    >>> stage_config("seeds: [1]")
    Traceback (most recent call last):
    inscl.errors.ConfigError: stage.yaml has a problem:
      line 1: `seeds` is not known here.
    """
    config = StageConfig.read(text, name)
    asked = {key: value for key, value in changes.items() if value is not None}
    asked["training"] = {**config.training, **asked.get("training", {})}
    return config.changed(name, **asked)
