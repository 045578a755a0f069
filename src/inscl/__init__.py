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
    from inscl.callback import ContinualCallback
    from inscl.encoder import SentenceEncoder
    from inscl.errors import InsclError
    from inscl.example import Example
    from inscl.memory import Memory
    from inscl.plans import Budget, Plan
    from inscl.replay import Replay, plan
    from inscl.strategies import Settings

__version__ = version("inscl")

_HOME = {
    "Budget": "plans",
    "ContinualCallback": "callback",
    "Example": "example",
    "InsclError": "errors",
    "Memory": "memory",
    "Plan": "plans",
    "Replay": "replay",
    "SentenceEncoder": "encoder",
    "Settings": "strategies",
    "plan": "replay",
}
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
    "__version__",
    "plan",
]


def __getattr__(name: str) -> Any:
    """Load a public name where it is first used, so that `import inscl` stays instant."""
    if name in _HOME:
        return getattr(import_module(f"inscl.{_HOME[name]}"), name)
    raise AttributeError(f"module 'inscl' has no attribute '{name}'")
