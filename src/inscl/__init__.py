"""Keep fine-tuning one language model on new instruction data without losing what it already does.

from inscl import Memory, plan

memory = Memory("memory")
replay = plan(memory, "billing", dataset, budget=200)
SFTTrainer(model, train_dataset=replay.mixture(), ...).train()
memory.add("billing", dataset)
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inscl.data.example import Example
    from inscl.errors import InsclError
    from inscl.memory.encoder import SentenceEncoder
    from inscl.memory.memory import Memory
    from inscl.replay.budget import Budget
    from inscl.replay.plan import Plan
    from inscl.replay.planner import Replay, plan
    from inscl.replay.registry import Strategy
    from inscl.replay.settings import Settings
    from inscl.replay.strategies import add_strategy
    from inscl.stages.callback import ContinualCallback

__version__ = version("inscl")

_HOME = {
    "Budget": "replay.budget",
    "ContinualCallback": "stages.callback",
    "Example": "data.example",
    "InsclError": "errors",
    "Memory": "memory.memory",
    "Plan": "replay.plan",
    "Replay": "replay.planner",
    "SentenceEncoder": "memory.encoder",
    "Settings": "replay.settings",
    "Strategy": "replay.registry",
    "add_strategy": "replay.strategies",
    "plan": "replay.planner",
}
_CORE = ("budget", "distance", "insinfo", "metrics")  # modules of the numerical core, as `inscl.distance` and so on
__all__ = [
    "Budget",
    "ContinualCallback",
    "Example",
    "InsclError",
    "Memory",
    "Plan",
    "Replay",
    "SentenceEncoder",
    "Settings",
    "Strategy",
    "__version__",
    "add_strategy",
    "plan",
]


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used, so that `import inscl` stays instant."""
    if name in _CORE:
        return import_module(f"inscl.core.{name}")
    if name in _HOME:
        return getattr(import_module(f"inscl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'inscl' has no attribute '{name}'")
