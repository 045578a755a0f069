"""What a stream run is made of, read from YAML and checked as a whole.

`load_config` reports every problem of a file together, each with its line. `StreamConfig` is what the run
reads; its `resolved` form, with all defaults filled in, goes into the run's record.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    PrivateAttr,
    StrictBool,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import core_schema

from inscl.core.orders import Order, order_of, with_seed
from inscl.demo.sets import TASK_SETS
from inscl.errors import ConfigError, DataError, PlanError
from inscl.replay.budget import Budget, general_share
from inscl.settings import Count, Natural, Section, Texts, member, read_text
from inscl.training.config import StageConfig
from inscl.yaml_text import KeyPath, LinedYaml, Problem, dotted

_LAST_STAGES = 5  # how many stages at the end `test_rows.last_stages` speaks of


# --- Checks of single values. Their message replaces pydantic's, so it says what was wanted.


def _known_strategy(name: str) -> str:
    from inscl.replay.strategies import STRATEGIES

    base, plus, _ = name.partition("+")
    if plus and base in STRATEGIES:
        try:
            STRATEGIES.named(name)
        except PlanError as error:
            raise ValueError(str(error)) from None
        return name
    return member(name, STRATEGIES)


def _measure(name: str) -> str:
    from inscl.replay.settings import Settings

    return member(name, Settings.__dataclass_fields__)


def _measures(values: dict[str, Any]) -> dict[str, Any]:
    from inscl.replay.settings import Settings

    try:
        Settings(**values)
    except PlanError as error:
        raise ValueError(f"`replay`: {error}") from None
    return values


def _task_set(name: object) -> str:
    return "six" if name is True else member(str(name), TASK_SETS)


def _task_of_set(name: str, info: ValidationInfo) -> str:
    return member(name, TASK_SETS[info.data["demo"]].names) if "demo" in info.data else name


def _known_format(name: str) -> str:
    from inscl.data.readers import FORMATS

    return member(name, FORMATS)


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
    with suppress(PlanError):
        found = Budget.parse(value) if isinstance(value, str) else Budget(value)  # type: ignore[arg-type]  # it checks
        if found.amount:
            return found.amount
    raise ValueError(f"got {value!r}; wanted a count of 1 or more, or a share such as 5% or 0.05.")


def _distinct(values: tuple[object, ...]) -> tuple[Any, ...]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"holds {twice[0]!r} twice; name each once.")
    return values


def _all_as_none(value: object) -> object:
    return None if value == "all" else value


_Amount = Annotated[int | float, PlainValidator(_amount)]
_Rows = Annotated[Count | None, BeforeValidator(_all_as_none)]  # None: all
_Seeds = Annotated[tuple[Natural, ...], Field(min_length=1), AfterValidator(_distinct)]
_Paths = Annotated[Texts, Field(min_length=1)]


# --- The sections of a configuration.


class DemoTasks(Section):
    """Tasks that come with inscl: ``tasks: demo``, or ``tasks: {demo: forms}`` for another set of `TASK_SETS`."""

    demo: Annotated[str, BeforeValidator(_task_set)] = "six"
    seed: Natural = 0
    train: Count = 120
    dev: Count = 20
    test: Count = 60
    only: tuple[Annotated[str, AfterValidator(_task_of_set)], ...] | None = None  # None: all of the set


class Checkout(Section):
    """Tasks of a Super-NaturalInstructions checkout."""

    superni: str
    categories: str | dict[str, tuple[str, ...]] | None = None  # a JSON file, or the mapping that it would hold
    only: tuple[str, ...] | None = None  # the tasks to take; None: all


class TaskFiles(Section):
    """Data of one task: ``name: file`` or ``name: {data: [files], ...}``."""

    data: _Paths
    dev: str | None = None
    test: str | None = None
    format: Annotated[str, AfterValidator(_known_format)] | None = None
    instruction_field: str | None = None
    preferred: StrictBool = False
    max_mib: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_paths(cls, value: object) -> object:
        return {"data": value} if isinstance(value, str | list) else value


def _kind_of_tasks(value: object) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, Section) else ()
    return "<demo>" if value == "demo" or "demo" in keys else "<checkout>" if "superni" in keys else "<files>"


def _demo_by_name(value: object) -> object:
    return {} if value == "demo" else value


_NamedFiles = Annotated[dict[Annotated[str, AfterValidator(_task_name)], TaskFiles], Field(min_length=1)]
_Tasks = Annotated[
    Annotated[DemoTasks, BeforeValidator(_demo_by_name), Tag("<demo>")]
    | Annotated[Checkout, Tag("<checkout>")]
    | Annotated[_NamedFiles, Tag("<files>")],
    Discriminator(_kind_of_tasks),
]


class _BudgetForm(Section):
    """How a budget is written: ``200``, ``5%``, ``{per_task: 24}`` or ``{tokens: 20000}``."""

    total: _Amount | None = None
    per_task: _Amount | None = None
    tokens: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_amount(cls, value: object) -> object:
        if isinstance(value, Budget):
            return _written(value)
        return value if isinstance(value, dict) else {"total": _amount(value)}

    @model_validator(mode="after")
    def _one_way(self) -> "_BudgetForm":
        if sum(way is not None for way in (self.total, self.per_task, self.tokens)) != 1:
            raise ValueError("wanted exactly one of `total`, `per_task` and `tokens`.")
        return self

    def budget(self) -> Budget:
        """What is meant."""
        if self.tokens is not None:
            return Budget(self.tokens, "tokens", per_task=False)
        if self.per_task is not None:
            return Budget(self.per_task, per_task=True)
        return Budget(self.total or 0, per_task=False)


def _written(budget: Budget) -> dict[str, int | float]:
    """A budget as a configuration holds it."""
    way = "tokens" if budget.unit == "tokens" else "per_task" if budget.per_task else "total"
    return {way: budget.amount}


class _AsWritten:
    """Lets pydantic read and write a `Budget` in the form of a configuration."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            _BudgetForm.budget,
            handler.generate_schema(_BudgetForm),
            serialization=core_schema.plain_serializer_function_ser_schema(_written),
        )


class Experts(Section):
    """One model per task, trained on it alone; scores are averaged over the seeds."""

    seeds: _Seeds = (0, 1, 2)


class TestRows(Section):
    """How many test rows a stage scores of each task; None: all. A number alone holds for every stage."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    every_stage: _Rows = 48
    last_stages: _Rows = 200

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
        return self.last_stages if stage >= n_stages - _LAST_STAGES else self.every_stage

    @property
    def most(self) -> int | None:
        """The rows on which upper bounds and the untrained model are scored: as many as any stage scores."""
        if self.every_stage is None or self.last_stages is None:
            return None
        return max(self.every_stage, self.last_stages)


class Limits(Section):
    """Most rows of a task that are used; None: all."""

    train: _Rows = None
    test: _Rows = None


def _share(value: object) -> float:
    """A share: ``"10%"`` or ``0.1``."""
    try:
        return general_share(value)
    except PlanError:
        raise ValueError(f"got {value!r}; wanted a share above 0, at most 1, such as 10% or 0.1.") from None


class General(Section):
    """What keeps general ability: ``general: 10%``, or ``general: {share: 10%, data: [files], ...}``.

    Without data these are the everyday instructions that come with inscl.
    """

    share: Annotated[float, PlainValidator(_share)]
    data: _Paths | None = None
    format: Annotated[str, AfterValidator(_known_format)] | None = None
    instruction_field: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_share(cls, value: object) -> object:
        return value if isinstance(value, dict | General) else {"share": value}


class StreamConfig(StageConfig):
    """A whole experiment: how each stage trains and scores, and tasks x budgets x orders x strategies x seeds.

    Attributes
    ----------
    tasks : DemoTasks, Checkout, or mapping from task name to TaskFiles
    model : str
        A Hub id, a folder, or an embedded model's name.
    encoder : str, optional
        None: inscl's own choice.
    orders : tuple of names and lists of tasks; see `inscl.core.orders.order_of`
        "random" is another order for each seed.
    strategies, budgets, seeds : tuples
    general : General, optional
        Which share of each stage's replay is of general tasks; None: none.
    experts : Experts, optional
        None: no experts, and so no Relative Gain and no learning.
    joint : bool
        Whether to train on all tasks at once as an upper bound.
    replay : dict
        What shapes distances and InsInfo: fields of `inscl.replay.settings.Settings`.
    test_rows : TestRows
    limits : Limits
    keep : which stages' models stay on disk
    """

    nested: ClassVar[Mapping[str | int, type[Section]]] = {
        "<demo>": DemoTasks, "<checkout>": Checkout, "<files>": TaskFiles, "budgets": _BudgetForm, "experts": Experts,
        "general": General, "test_rows": TestRows, "limits": Limits, **StageConfig.nested,
    }  # fmt: skip

    tasks: _Tasks
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
    budgets: Annotated[tuple[Annotated[Budget, _AsWritten], ...], Field(min_length=1), AfterValidator(_distinct)] = (
        Budget(200, per_task=True),
    )  # as in the paper
    general: General | None = None
    seeds: _Seeds = (0,)
    experts: Experts | None = Experts()
    joint: StrictBool = False
    replay: Annotated[dict[Annotated[str, AfterValidator(_measure)], Any], AfterValidator(_measures)] = Field(
        default_factory=dict
    )
    test_rows: TestRows = TestRows()
    limits: Limits = Limits()
    keep: Literal["all", "last", "none"] = "last"

    _folder: Path = PrivateAttr(Path())

    def locate(self, path: str) -> str:
        """A path of the configuration, seen from its file; what is not there (a Hub id, say) stays."""
        found = _found(self._folder, path)
        return path if found is None else str(found)

    def resolved(self) -> dict[str, Any]:
        """All settings with their defaults, as plain data that JSON holds and `StreamConfig` reads again."""
        return self.model_dump(mode="json")


def _known_task_names(tasks: object) -> tuple[str, ...] | None:
    """Names of the tasks, where the configuration alone tells them."""
    if isinstance(tasks, DemoTasks):
        return tasks.only or TASK_SETS[tasks.demo].names
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
    return parse_config(read_text(path), name=str(path), folder=Path(path).parent)


def parse_config(text: str, *, name: str = "stream.yaml", folder: Path = Path()) -> StreamConfig:
    """As `load_config`, from the text itself.

    Examples
    --------
    >>> parse_config("tasks: demo\\nmodel: smollm2-135m\\nbudgets: [5%]").budgets[0].amount
    0.05
    >>> parse_config("tasks: demo\\nmodle: smollm2-135m")
    Traceback (most recent call last):
    inscl.errors.ConfigError: stream.yaml has 2 problems:
      line 1: `model` is missing.
      line 2: `modle` is not known here. Did you mean 'model'?
    """

    def more(data: Mapping[str, object], source: LinedYaml) -> list[Problem]:
        tasks = _valid_tasks(data.get("tasks"))
        return _missing_files(tasks, data.get("general"), folder, source) + _impossible_orders(tasks, source)

    config = StreamConfig.read(text, name, more)
    config._folder = folder
    return config


def _valid_tasks(value: object) -> Any:
    """The tasks of a configuration, whatever else is wrong with it; None if they cannot be told."""
    try:
        return TypeAdapter(_Tasks).validate_python(value)
    except ValidationError:
        return None


def _missing_files(tasks: object, general: object, folder: Path, source: LinedYaml) -> list[Problem]:
    """Files that are named as files and are not there."""
    data = general.get("data") if isinstance(general, dict) else None
    named = [path for path in (data if isinstance(data, list) else [data]) if isinstance(path, str)]
    wanted: list[tuple[KeyPath, str]] = [(("general", "data"), path) for path in named if _names_a_file(path)]
    if isinstance(tasks, Checkout):
        wanted.append((("tasks", "superni"), tasks.superni))
        if isinstance(tasks.categories, str):
            wanted.append((("tasks", "categories"), tasks.categories))
    elif isinstance(tasks, dict):
        for task, files in tasks.items():
            paths = [*files.data, *filter(None, (files.dev, files.test))]
            wanted += [(("tasks", task), path) for path in paths if _names_a_file(path)]
    return [
        (source.line_of(place), f"`{dotted(place)}`: there is no file or folder '{folder / path}'.")
        for place, path in wanted
        if _found(folder, path) is None
    ]


def _found(folder: Path, path: str) -> Path | None:
    """A file or folder, seen from another one; None where there is none, or no system could have it."""
    try:
        place = folder / Path(path).expanduser()
        return place if place.exists() else None
    except (OSError, RuntimeError):  # too long a name, or a home of nobody
        return None


def _impossible_orders(tasks: object, source: LinedYaml) -> list[Problem]:
    """Orders that are unknown, or no order of the tasks where the configuration alone tells their names."""
    orders, names = source.data.get("orders"), _known_task_names(tasks)
    dev_scores = None if source.data.get("experts", True) is None else dict.fromkeys(names or (), 0.0)
    problems = []
    for i, order in enumerate(orders if isinstance(orders, list) else []):
        listed = isinstance(order, list) and names is not None and all(isinstance(name, str) for name in order)
        if not isinstance(order, str) and not listed:
            continue
        try:
            order_of(with_seed(order if isinstance(order, str) else tuple(order), 0), names or (), dev_scores)
        except ConfigError as error:
            problems.append((source.line_of(("orders", i)), f"`orders[{i}]`: {error}"))
    return problems


def _names_a_file(path: str) -> bool:
    """Whether a text can only be a path; `owner/name` may be a dataset's Hub id."""
    from inscl.data.readers.files import container_by_name

    return path.startswith(("/", ".", "~")) or path.count("/") != 1 or container_by_name(Path(path)) is not None
