"""Sample from a model with a dense cache, one token at a time: what `run` and the demo need, no engine."""

from collections.abc import Iterator

import torch
from torch import Tensor

from shoestring.errors import ConfigError
from shoestring.model.transformer import Transformer


@torch.inference_mode()
def generate(
    model: Transformer,
    ids: list[int],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: frozenset[int] = frozenset(),
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that follow `ids`; ends at a stop id, which is not yielded.

    Temperature 0 takes the likeliest token. Raises ConfigError when the prompt is empty or leaves no room.
    """
    limit = model.config.max_position_embeddings
    if not ids or len(ids) >= limit:
        raise ConfigError(
            f"the prompt has {len(ids):,} tokens; this model takes 1 to {limit - 1:,}, so shorten it"
        )
    if max(ids) >= model.config.vocab_size:
        raise ConfigError(f"the prompt holds id {max(ids)}, the model knows {model.config.vocab_size}")
    generator = torch.Generator(model.device).manual_seed(seed)
    room = min(max_tokens, limit - len(ids))
    cache = model.new_cache(batch=1, capacity=len(ids) + room)
    pending = torch.tensor([ids], device=model.device)
    for _ in range(room):
        hidden_BTD = model.features(pending, cache).hidden_BTD
        chosen = pick(model.logits(hidden_BTD[:, -1])[0], temperature, top_p, generator)
        if chosen in stop_ids:
            return
        yield chosen
        pending = torch.tensor([[chosen]], device=model.device)


def pick(logits_W: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One id: the likeliest at temperature 0, else drawn from the smallest set of total probability top_p."""
    if temperature <= 0:
        return int(logits_W.argmax())
    probability, order = (logits_W / temperature).softmax(-1).sort(descending=True)
    kept = probability * ((probability.cumsum(-1) - probability) < top_p)
    return int(order[torch.multinomial(kept, 1, generator=generator)])
