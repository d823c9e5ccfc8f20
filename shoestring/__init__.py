"""shoestring: the DeepSeek system, whole and open, from tokenizer to chat."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shoestring import openmp

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.inputs import LoRARequest, PromptType, TextPrompt, TokensPrompt
    from shoestring.outputs import CompletionOutput, RequestOutput, ScoringRequestOutput
    from shoestring.sampling_params import SamplingParams

_MODULES = {
    "engine.llm": ("LLM",),
    "inputs": ("LoRARequest", "PromptType", "TextPrompt", "TokensPrompt"),
    "outputs": ("CompletionOutput", "RequestOutput", "ScoringRequestOutput"),
    "sampling_params": ("SamplingParams",),
}
__all__ = [
    "LLM", "CompletionOutput", "LoRARequest", "PromptType", "RequestOutput", "SamplingParams",
    "ScoringRequestOutput", "TextPrompt", "TokensPrompt", "__version__",
]  # fmt: skip
__version__ = "0.1.0"

openmp.set_defaults()  # before anything imports torch


def __getattr__(name: str) -> Any:
    """Import a name on first use, because importing torch takes a second."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"shoestring.{module}"), name)
    raise AttributeError(f"module 'shoestring' has no attribute {name!r}")
