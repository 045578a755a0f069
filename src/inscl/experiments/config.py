"""What a stream run is made of, read from YAML and checked as a whole.

`load_config` reports every problem of a file together, each with its line. `StreamConfig` is what the run
reads; its `resolved` form, with all defaults filled in, goes into the run's record.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from inscl.core.orders import Order, order_of
from inscl.demo.tasks import TASKS as DEMO_TASKS
from inscl.errors import ConfigError, DataError, PlanError
from inscl.lined_yaml import LinedYaml, Place, read_yaml
from inscl.suggest import suggest

LAST_STAGES = 5  # how many stages at the end `test_rows.last_stages` speaks of


# --- Checks of single values. Their message replaces pydantic's, so it says what was wanted.


def _known_strategy(name: str) -> str:
    from inscl.replay.strategies import STRATEGIES

    return _member(name, STRATEGIES)


def _measure(name: str) -> str:
    from inscl.replay.settings import Settings

    return _member(name, Settings.__dataclass_fields__)


def _measures(values: dict[str, Any]) -> dict[str, Any]:
    from inscl.replay.settings import Settings

    try:
        Settings(**values)
    except PlanError as error:
        raise ValueError(f"`replay`: {error}") from None
    return values


def _not_owned(name: str) -> str:
    from inscl.training.fields import OWNED

    if name in OWNED:
        raise ValueError(f"inscl sets this itself: {OWNED[name]}.")
    return name


def _demo_task(name: str) -> str:
    return _member(name, DEMO_TASKS)


def _known_scorer(name: str) -> str:
    from inscl.evaluation.scoring import SCORERS

    return _member(name, SCORERS)


def _known_format(name: str) -> str:
    from inscl.data.readers import FORMATS

    return _member(name, FORMATS)


def _task_name(name: str) -> str:
    from inscl.memory.task import check_name

    try:
        return check_name(name)
    except DataError as error:
        raise ValueError(str(error)) from error


def _order(value: object) -> Order:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError(f"got {value!r}; wanted the name of an order, or a list of all tasks.")


def _amount(value: object) -> int | float:
    """A count of examples, or a share: ``200``, ``"5%"``, ``0.05``."""
    wanted = "wanted a count of 1 or more, or a share such as 5% or 0.05."
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            value = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"got {value!r}; {wanted}") from None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, float) and 0 < value <= 1:
        return value
    raise ValueError(f"got {value!r}; {wanted}")


def _member(name: str, known: Collection[str]) -> str:
    if name not in known:
        raise ValueError(f"got '{name}'; wanted one of {', '.join(known)}.{suggest(name, known)}")
    return name


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"holds {twice[0]!r} twice; name each once.")
    return values


def _all_as_none(value: object) -> object:
    return None if value == "all" else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Count = Annotated[int, Field(strict=True, ge=1)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amount = Annotated[int | float, PlainValidator(_amount)]
Rows = Annotated[Count | None, BeforeValidator(_all_as_none)]  # None: all
Seeds = Annotated[tuple[Natural, ...], Field(min_length=1), AfterValidator(_distinct)]
Paths = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed)]


# --- The parts of a configuration.


class Part(BaseModel):
    """A frozen mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DemoTasks(Part):
    """The tasks that come with inscl: ``tasks: demo``."""

    demo: Literal[True] = True
    seed: Natural = 0
    train: Count = 120
    dev: Count = 20
    test: Count = 60
    only: tuple[Annotated[str, AfterValidator(_demo_task)], ...] | None = None  # None: all six


class Checkout(Part):
    """Tasks of a Super-NaturalInstructions checkout."""

    superni: str
    categories: str | dict[str, tuple[str, ...]] | None = None  # a JSON file, or the mapping that it would hold
    only: tuple[str, ...] | None = None  # the tasks to take; None: all


class TaskFiles(Part):
    """Data of one task: ``name: file`` or ``name: {data: [files], ...}``."""

    data: Paths
    dev: str | None = None
    test: str | None = None
    format: Annotated[str, AfterValidator(_known_format)] | None = None
    instruction_field: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_paths(cls, value: object) -> object:
        return {"data": value} if isinstance(value, str | list) else value


def _kind_of_tasks(value: object) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, Part) else ()
    return "<demo>" if value == "demo" or "demo" in keys else "<checkout>" if "superni" in keys else "<files>"


def _demo_by_name(value: object) -> object:
    return {} if value == "demo" else value


NamedFiles = Annotated[dict[Annotated[str, AfterValidator(_task_name)], TaskFiles], Field(min_length=1)]
Tasks = Annotated[
    Annotated[DemoTasks, BeforeValidator(_demo_by_name), Tag("<demo>")]
    | Annotated[Checkout, Tag("<checkout>")]
    | Annotated[NamedFiles, Tag("<files>")],
    Discriminator(_kind_of_tasks),
]


class Budget(Part):
    """How much a stage replays, said in one way: ``200``, ``5%``, ``{per_task: 24}`` or ``{tokens: 20000}``.

    A share is one of the new task's training rows.
    """

    total: Amount | None = None
    per_task: Amount | None = None
    tokens: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_amount(cls, value: object) -> object:
        return value if isinstance(value, dict | Budget) else {"total": _amount(value)}

    @model_validator(mode="after")
    def _one_way(self) -> "Budget":
        if sum(way is not None for way in (self.total, self.per_task, self.tokens)) != 1:
            raise ValueError("wanted exactly one of `total`, `per_task` and `tokens`.")
        return self

    @property
    def label(self) -> str:
        """How tables and folders name it.

        >>> [Budget.model_validate(b).label for b in (200, "5%", {"per_task": 24}, {"tokens": 20000})]
        ['200', '5%', '24 per task', '20000 tokens']
        """
        if self.tokens is not None:
            return f"{self.tokens} tokens"
        amount = self.total if self.per_task is None else self.per_task
        shown = f"{100 * amount:g}%" if isinstance(amount, float) else str(amount)
        return shown if self.per_task is None else f"{shown} per task"


class Experts(Part):
    """One model per task, trained on it alone; scores are averaged over the seeds."""

    seeds: Seeds = (0, 1, 2)


class TestRows(Part):
    """How many test rows a stage scores of each task; None: all. A number alone holds for every stage."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    every_stage: Rows = 48
    last_stages: Rows = 200

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        if value is None or isinstance(value, int) or value == "all":
            return {"every_stage": value, "last_stages": value}
        if isinstance(value, dict | TestRows):
            return value
        raise ValueError(f"got {value!r}; wanted a whole number, all, or every_stage and last_stages.")

    def at(self, stage: int, n_stages: int) -> int | None:
        """Rows to score at a stage, counted from 0; the last five are `last_stages`.

        >>> [TestRows().at(stage, n_stages=7) for stage in range(7)]
        [48, 48, 200, 200, 200, 200, 200]
        """
        return self.last_stages if stage >= n_stages - LAST_STAGES else self.every_stage


class Protect(Part):
    """What keeps the weights near the stage's start; all off by default. See `inscl.training.train.train_stage`."""

    freeze_bottom_layers: Natural = 0
    l2_start: Fraction = 0.0
    ema: Fraction = 0.0
    interpolate: Fraction = 0.0


class Limits(Part):
    """Most rows of a task that are used; None: all."""

    train: Rows = None
    test: Rows = None


class StreamConfig(Part):
    """A whole experiment: tasks x budgets x orders x strategies x seeds.

    Attributes
    ----------
    tasks : DemoTasks, Checkout, or mapping from task name to TaskFiles
    model : str
        A Hub id, a folder, or an embedded model's name.
    encoder : str, optional
        None: inscl's own choice.
    orders : tuple of names and lists of tasks; see `inscl.core.orders.order_of`
    strategies, budgets, seeds : tuples
    experts : Experts, optional
        None: no experts, and so no Relative Gain and no learning.
    joint : bool
        Whether to train on all tasks at once as an upper bound.
    replay : dict
        What shapes distances and InsInfo: fields of `inscl.replay.settings.Settings`.
    training, peft : dict
        Passed on to the trainer: `SFTConfig` fields, and a PEFT configuration (None: full fine-tuning).
    protect : Protect
    adapter : what a stage does with the adapter of the stage before
    batch_size : int
        Examples of an optimiser step over all devices.
    max_length, max_new_tokens : int
        Tokens of a training row; of an answer (None: from the training answers).
    padding_free : bool
        Train the rows of a device's batch as one sequence without padding, where the model keeps them apart.
    scorer : str
    test_rows : TestRows
    limits : Limits
    dtype : of the weights; "auto" chooses by a short probe
    keep : which stages' models stay on disk
    report_to : trackers, as the trainer names them
    """

    tasks: Tasks
    model: Annotated[str, Field(min_length=1)]
    encoder: str | None = None
    orders: Annotated[
        tuple[Annotated[Order, BeforeValidator(_order)], ...], Field(min_length=1), AfterValidator(_distinct)
    ] = ("given",)
    strategies: Annotated[
        tuple[Annotated[str, AfterValidator(_known_strategy)], ...],
        Field(min_length=1),
        AfterValidator(_distinct),
    ] = ("none", "random", "inscl")
    budgets: Annotated[tuple[Budget, ...], Field(min_length=1), AfterValidator(_distinct)] = (Budget(per_task=200),)
    seeds: Seeds = (0,)
    experts: Experts | None = Experts()
    joint: StrictBool = False
    replay: Annotated[dict[Annotated[str, AfterValidator(_measure)], Any], AfterValidator(_measures)] = {}
    training: dict[Annotated[str, AfterValidator(_not_owned)], Any] = {}
    peft: dict[str, Any] | None = None
    protect: Protect = Protect()
    adapter: Literal["continue", "merge", "new"] = "continue"
    batch_size: Count = 32
    max_length: Count = 1024
    padding_free: StrictBool = False
    max_new_tokens: Count | None = None
    scorer: Annotated[str, AfterValidator(_known_scorer)] = "rouge_l"
    test_rows: TestRows = TestRows()
    limits: Limits = Limits()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    keep: Literal["all", "last", "none"] = "last"
    report_to: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()

    _folder: Path = PrivateAttr(Path())

    def locate(self, path: str) -> str:
        """A path of the configuration, seen from its file; what is not there (a Hub id, say) stays."""
        found = self._folder / Path(path).expanduser()
        return str(found) if found.exists() else path

    def resolved(self) -> dict[str, Any]:
        """All settings with their defaults, as plain data that JSON holds and `StreamConfig` reads again."""
        return self.model_dump(mode="json")


def known_task_names(tasks: object) -> tuple[str, ...] | None:
    """Names of the tasks, where the configuration alone tells them."""
    if isinstance(tasks, DemoTasks):
        return tasks.only or tuple(DEMO_TASKS)
    if isinstance(tasks, Checkout):
        return tasks.only or (tuple(tasks.categories) if isinstance(tasks.categories, dict) else None)
    return tuple(tasks) if isinstance(tasks, dict) else None


# --- Reading a file, and its problems.


def load_config(path: str | Path) -> StreamConfig:
    """Read and check a stream's configuration.

    Parameters
    ----------
    path : path
        A YAML file. Relative paths in it start at its folder.

    Raises
    ------
    ConfigError
        If the file cannot be read or used: one message, with one line per problem in the order of the file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error}.") from error
    return parse_config(text, name=str(path), folder=Path(path).parent)


def parse_config(text: str, *, name: str = "stream.yaml", folder: Path = Path()) -> StreamConfig:
    """As `load_config`, from the text itself.

    Examples
    --------
    >>> parse_config("tasks: demo\\nmodel: smollm2-135m\\nbudgets: [5%]").budgets[0].total
    0.05
    >>> parse_config("tasks: demo\\nmodle: smollm2-135m")
    Traceback (most recent call last):
    inscl.errors.ConfigError: stream.yaml has 2 problems:
      line 1: `model` is missing.
      line 2: `modle` is not known here. Did you mean 'model'?
    """
    try:
        source = read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{name}, {error}") from error
    if not isinstance(source.data, dict):
        raise ConfigError(f"{name} wants keys and values such as `model: smollm2-135m`, got {source.data!r:.60}.")
    problems = [(line, f"`{_dotted(place)}` stands twice; keep one.") for place, line in source.repeated]
    try:
        config = StreamConfig.model_validate(source.data)
    except ValidationError as error:
        # A list whose entries are wrong counts as empty too, which says nothing new.
        told = [d for d in error.errors() if not (d["type"] == "too_short" and d["input"])]
        problems += [_problem(detail, source) for detail in told]
    tasks = _valid_tasks(source.data.get("tasks"))
    problems += _missing_files(tasks, folder, source) + _impossible_orders(tasks, source)
    if problems:
        lines = [f"  line {line}: {text}" for line, text in sorted(problems)]
        many = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError("\n".join([f"{name} has {many}:", *lines]))
    config._folder = folder
    return config


def _problem(detail: ErrorDetails, source: LinedYaml) -> tuple[int, str]:
    """Line and text of one thing that pydantic found wrong."""
    # Tags of the union and pydantic's mark of a key are no keys of the file.
    place: Place = tuple(p for p in detail["loc"] if p not in ("<demo>", "<checkout>", "<files>", "[key]"))
    line, dotted, context = source.line_of(place), _dotted(place), detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return line, f"`{dotted}` is missing."
        case "extra_forbidden":
            return line, f"`{dotted}` is not known here.{suggest(place[-1], _keys_at(detail['loc']))}"
        case "value_error":
            text = str(context["error"])
            return line, f"`{dotted}` {text}" if dotted and not text.startswith("`") else text
        case _:
            return line, f"`{dotted}` is {detail['input']!r:.60}; wanted {_wanted(detail)}."


_WANTED: dict[str, str] = {
    "int_type": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "tuple_type": "a list",
    "too_short": "at least one entry",
    "string_too_short": "a text that is not empty",
}


def _wanted(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case "literal_error":
            return f"{context['expected']}"
        case kind:
            return _WANTED.get(kind, detail["msg"])


def _keys_at(place: tuple[str | int, ...]) -> list[str]:
    """Keys that were possible beside an unknown one."""
    parts: dict[str | int, type[Part]] = {
        "<demo>": DemoTasks, "<checkout>": Checkout, "<files>": TaskFiles, "budgets": Budget,
        "experts": Experts, "test_rows": TestRows, "limits": Limits, "protect": Protect,
    }  # fmt: skip
    inner = [parts[p] for p in place[:-1] if p in parts]
    return list((inner[0] if inner else StreamConfig).model_fields)


def _valid_tasks(value: object) -> Any:
    """The tasks of a configuration, whatever else is wrong with it; None if they cannot be told."""
    try:
        return TypeAdapter(Tasks).validate_python(value)
    except ValidationError:
        return None


def _missing_files(tasks: Any, folder: Path, source: LinedYaml) -> list[tuple[int, str]]:
    """Files that are named as files and are not there."""
    wanted: list[tuple[Place, str]] = []
    if isinstance(tasks, Checkout):
        wanted.append((("tasks", "superni"), tasks.superni))
        if isinstance(tasks.categories, str):
            wanted.append((("tasks", "categories"), tasks.categories))
    elif isinstance(tasks, dict):
        for task, files in tasks.items():
            paths = [*files.data, *filter(None, (files.dev, files.test))]
            wanted += [(("tasks", task), path) for path in paths if _names_a_file(path)]
    return [
        (source.line_of(place), f"`{_dotted(place)}`: there is no file or folder '{folder / path}'.")
        for place, path in wanted
        if not (folder / Path(path).expanduser()).exists()
    ]


def _impossible_orders(tasks: Any, source: LinedYaml) -> list[tuple[int, str]]:
    """Orders that are unknown, or no order of the tasks where the configuration alone tells their names."""
    orders, names = source.data.get("orders"), known_task_names(tasks)
    dev_scores = None if source.data.get("experts", True) is None else dict.fromkeys(names or (), 0.0)
    problems = []
    for i, order in enumerate(orders if isinstance(orders, list) else []):
        if not isinstance(order, str) and (names is None or not isinstance(order, list)):
            continue
        try:
            order_of(order if isinstance(order, str) else tuple(order), names or (), dev_scores)
        except ConfigError as error:
            problems.append((source.line_of(("orders", i)), f"`orders[{i}]`: {error}"))
    return problems


def _names_a_file(path: str) -> bool:
    """Whether a text can only be a path; `owner/name` may be a dataset's Hub id."""
    from inscl.data.readers.files import container_by_name

    return path.startswith(("/", ".", "~")) or path.count("/") != 1 or container_by_name(Path(path)) is not None


def _dotted(place: Place) -> str:
    """A place as it is said in a message: ``budgets[0].tokens``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".")
