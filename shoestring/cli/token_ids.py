"""Completion of token ids by a model without a tokenizer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint


def prompt_ids(prompt: str | None, checkpoint: "Checkpoint") -> list[int]:
    """The ids that a prompt consists of. Raises ConfigError for any other prompt, and for none."""
    from shoestring.errors import ConfigError
    from shoestring.tokenizer.token_ids import read_token_ids

    if prompt is None:
        raise ConfigError(
            f"{checkpoint.folder.name} has no tokenizer, so it cannot chat; give token ids, such as '1 15043'"
        )
    return read_token_ids(prompt, checkpoint.config.vocab_size, "the prompt")


def complete_ids(llm: "LLM", ids: list[int], params: "SamplingParams") -> dict[str, Any]:
    """The reply to a prompt of token ids, as JSON. Raises ShoestringError if the request fails."""
    from shoestring.errors import ShoestringError

    reply = llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)[0].outputs[0]
    if reply.finish_reason == "error":
        raise ShoestringError(f"the request failed: {reply.stop_reason}")
    return {
        "prompt_token_ids": ids,
        "token_ids": list(reply.token_ids),
        "finish_reason": reply.finish_reason,
    }
