"""Keep fine-tuning one language model on new instruction data without losing what it already does."""

from importlib.metadata import version

__version__ = version("inscl")
__all__ = ["__version__"]
