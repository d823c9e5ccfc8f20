"""shoestring: the DeepSeek system, whole and open, from tokenizer to chat."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams

__all__ = ["LLM", "SamplingParams", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import LLM and SamplingParams on first use, because importing torch takes a second."""
    if name == "LLM":
        from shoestring.engine.llm import LLM

        return LLM
    if name == "SamplingParams":
        from shoestring.engine.request import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'shoestring' has no attribute {name!r}")
