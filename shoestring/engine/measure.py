"""Speed of an engine against concurrency, beside the limits of the machine's memory and arithmetic."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shoestring.device import Runtime, measure_peak, synchronize
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, RequestOutput, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.model import cost
from shoestring.model.transformer import Transformer

READ_BYTES = 256_000_000
"""Far more than any processor cache holds."""
INT8_SHAPE = (512, 2048, 2048)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The highest rates of this machine, measured now."""

    read_bytes_per_s: float
    float_flops_per_s: float
    """In the compute precision: float32 on a CPU."""
    int8_ops_per_s: float | None
    """Of oneDNN's product on a CPU; None where PyTorch has none."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Figures at one concurrency: times of single requests, rates of all of them together."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    first_token_s: float
    """Median over requests, from the moment when all are added; `_p95` is the 95th percentile."""
    first_token_s_p95: float
    between_tokens_s: float
    between_tokens_s_p95: float
    prompt_flops_per_s: float
    """Of the model's own products: repetitions and drafts do not count."""
    output_flops_per_s: float
    read_bytes_per_s: float
    """While decoding: the weights that a step reads on average, and the cache."""
    drafts: bool
    """Whether the engine speculated: decoding speed depends on how well the text can be guessed then."""
    acceptance: float | None
    """Share of drafts accepted; None if none were made."""


def measure_limits(runtime: Runtime) -> Limits:
    """Measure this machine's limits, in about two seconds."""
    return Limits(
        read_bytes_per_s=measure_reads(runtime),
        float_flops_per_s=measure_peak(runtime),
        int8_ops_per_s=_measure_int8() if runtime.device.type == "cpu" else None,
    )


def measure_reads(runtime: Runtime) -> float:
    """Bytes per second at which a quarter of a gigabyte is summed, the best of five runs."""
    data = torch.ones(READ_BYTES // 4, device=runtime.device)
    return data.nbytes / _best(data.sum, runtime.device)


def _measure_int8() -> float | None:
    onednn: Any = torch.ops.onednn
    rows, depth, width = INT8_SHAPE
    x = torch.randint(0, 127, (rows, depth), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (depth, width), dtype=torch.int8)
    scales, zeros = torch.ones(width), torch.zeros(width, dtype=torch.int32)
    try:
        packed = onednn.qlinear_prepack(weight, [rows, depth])
        arguments: tuple[Any, ...] = (
            x,
            1.0,
            0,
            packed,
            scales,
            zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return 2 * rows * depth * width / _best(lambda: onednn.qlinear_pointwise(*arguments))
    except (AttributeError, RuntimeError, NotImplementedError):  # a PyTorch built without oneDNN
        return None


def _best(run: Callable[[], Any], device: torch.device | None = None, times: int = 5) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        run()
        synchronize(device or torch.device("cpu"))
        best = min(best, time.perf_counter() - begin)
    return best


def measure_throughput(
    engine: Engine, text_ids: Sequence[int], *, concurrency: int, prompt_tokens: int, output_tokens: int
) -> Throughput:
    """Add `concurrency` prompts of a text at once; time them, then decoding of all of them together.

    Decoding is timed from the end of the last prompt until `output_tokens` were generated per request; the
    first requests have generated some before. The engine must have no other requests. Raises ConfigError
    when this does not fit its settings.
    """
    longest = longest_request(engine.settings, concurrency, prompt_tokens, output_tokens)
    if concurrency > engine.settings.max_num_seqs or longest > engine.max_model_len:
        raise ConfigError(
            f"{concurrency} requests of up to {longest:,} tokens do not fit: this engine runs "
            f"{engine.settings.max_num_seqs} at once, of up to {engine.max_model_len:,}"
        )
    _warm_up(engine, text_ids)
    prompts = windows(text_ids, concurrency, prompt_tokens)
    run = _Run(engine, _requests(prompts, longest - prompt_tokens))
    while not run.all_started:
        run.step()
    start, decoding = run.mark(), run.tokens + concurrency * output_tokens
    run.gaps.clear()
    while run.tokens < decoding and engine.has_unfinished():
        run.step()
    outputs = run.mark()
    run.close()
    return _figures(engine, run, start, outputs, prompt_tokens, output_tokens)


@contextmanager
def without_drafts(engine: Engine) -> Iterator[None]:
    """Run an idle engine without speculation meanwhile."""
    speculation, engine.speculation = engine.speculation, None
    try:
        yield
    finally:
        engine.speculation = speculation


def library_text(characters: int) -> str:
    """Source files of Python's standard library, which are at hand on every machine.

    Random tokens would make a model repeat itself, which drafts guess too well.
    """
    parts: list[str] = []
    for path in sorted(Path(argparse.__file__).parent.glob("*.py")):
        parts.append(path.read_text(encoding="utf-8", errors="replace"))
        if sum(map(len, parts)) >= characters:
            break
    return "".join(parts)[:characters]


def windows(text_ids: Sequence[int], number: int, length: int) -> list[tuple[int, ...]]:
    """Parts of a text of this length, from evenly spaced places on; a short text is repeated."""
    assert text_ids
    ids = list(text_ids)
    starts = [index * len(ids) // number for index in range(number)]
    ids *= 1 + -(-length // len(ids))
    return [tuple(ids[start : start + length]) for start in starts]


def longest_request(
    settings: EngineSettings, concurrency: int, prompt_tokens: int, output_tokens: int
) -> int:
    """Tokens of the first request, at most, when the last one has generated its `output_tokens`."""
    rows = max(settings.max_num_batched_tokens - concurrency * (1 + settings.num_speculative_tokens), 1)
    waits = -(-concurrency * prompt_tokens // rows)
    return prompt_tokens + (1 + settings.num_speculative_tokens) * (waits + 1) + 2 * output_tokens


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Work of the engine between two marks."""

    seconds: float
    steps: int
    rows: int
    num_generated: int
    num_drafted: int
    num_accepted: int


def _figures(
    engine: Engine, run: "_Run", prompts: _Phase, outputs: _Phase, prompt_tokens: int, output_tokens: int
) -> Throughput:
    config, number = engine.model.config, len(run.requests)
    context = prompt_tokens + output_tokens // 2
    prompt_flops = cost.forward_flops(config, prompt_tokens) - _spared_flops(engine.model, prompt_tokens)
    per_s, rows = outputs.num_generated / outputs.seconds, outputs.rows / outputs.steps
    num_drafted = prompts.num_drafted + outputs.num_drafted
    num_accepted = prompts.num_accepted + outputs.num_accepted
    return Throughput(
        concurrency=number,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prompt_tokens_per_s=number * prompt_tokens / prompts.seconds,
        output_tokens_per_s=per_s,
        first_token_s=statistics.median(run.first_token_s),
        first_token_s_p95=percentile(run.first_token_s, 0.95),
        between_tokens_s=statistics.median(run.gaps),
        between_tokens_s_p95=percentile(run.gaps, 0.95),
        prompt_flops_per_s=number * prompt_flops / prompts.seconds,
        output_flops_per_s=per_s * cost.decode_flops_per_token(config, context),
        read_bytes_per_s=step_bytes(engine, rows, number * context) * outputs.steps / outputs.seconds,
        drafts=engine.speculation is not None,
        acceptance=num_accepted / num_drafted if num_drafted else None,
    )


class _Run:
    """Requests in an engine, and the times of their tokens."""

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.engine, self.requests = engine, requests
        self.tokens, self.first_token_s, self.gaps = 0, list[float](), list[float]()
        self._last: dict[str, float] = {}
        self._begin = time.monotonic()
        self._mark_s, self._counters = self._begin, engine.counters
        for request in requests:
            engine.add_request(request)

    @property
    def all_started(self) -> bool:
        return len(self._last) == len(self.requests)

    def step(self) -> None:
        outputs = self.engine.step()
        now = time.monotonic()
        for output in outputs:
            self._note(output, now)

    def mark(self) -> _Phase:
        """The work since the last mark."""
        now, after, before = time.monotonic(), self.engine.counters, self._counters
        phase = _Phase(
            seconds=now - self._mark_s,
            steps=after.steps - before.steps,
            rows=after.computed_tokens - before.computed_tokens,
            num_generated=after.generated_tokens - before.generated_tokens,
            num_drafted=after.drafted_tokens - before.drafted_tokens,
            num_accepted=after.accepted_tokens - before.accepted_tokens,
        )
        self._mark_s, self._counters = now, after
        return phase

    def close(self) -> None:
        """Abort the unfinished requests."""
        for request in self.requests:
            self.engine.abort(request.request_id)
        self.engine.step()

    def _note(self, output: RequestOutput, now: float) -> None:
        new = len(output.outputs[0].token_ids)
        if not new:
            return
        self.tokens += new
        last = self._last.get(output.request_id)
        if last is None:
            self.first_token_s.append(now - self._begin)
        else:
            self.gaps += [(now - last) / new] * new
        self._last[output.request_id] = now


def step_bytes(engine: Engine, rows: float, cached_tokens: int) -> float:
    """Bytes that a decoding step of `rows` tokens over `cached_tokens` reads, without drafting.

    Each token is routed to K of E experts; at random, `rows` of them use E (1 - (1 - K / E)^rows) experts.
    """
    model, config = engine.model, engine.model.config
    always = experts = 0
    for name, tensor in model.state_dict().items():
        if ".mlp.experts." in name and _is_main(name, config.num_hidden_layers):
            experts += tensor.nbytes
        elif _is_read(name, model):
            always += tensor.nbytes
    expert_share = 0.0
    if config.moe is not None:
        expert_share = 1 - (1 - config.moe.num_experts_per_tok / config.moe.n_routed_experts) ** rows
    cache = cost.cache_bytes_per_token(config, model.compute_dtype.itemsize)
    return always + experts * expert_share + cached_tokens * cache


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of `values` does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def _is_main(name: str, num_layers: int) -> bool:
    """Return whether a tensor belongs to one of the main layers; MTP modules come behind them."""
    parts = name.split(".")
    return parts[:2] == ["model", "layers"] and int(parts[2]) < num_layers


def _is_read(name: str, model: Transformer) -> bool:
    """Return whether every step reads all of a tensor, as it does the embedding when that is the head too."""
    if name.startswith("model.embed_tokens"):
        return not hasattr(model, "lm_head")
    return not name.startswith("model.layers") or _is_main(name, model.config.num_hidden_layers)


def _spared_flops(model: Transformer, prompt_tokens: int) -> int:
    """Products of the head that prompts do without: it is applied to their last token only."""
    return 2 * (prompt_tokens - 1) * model.config.vocab_size * model.config.hidden_size


def _warm_up(engine: Engine, text_ids: Sequence[int]) -> None:
    """Compile kernels and read the weights once, untimed."""
    run = _Run(engine, _requests(windows(text_ids, 1, 8), 4))
    while engine.has_unfinished():
        run.step()


def _requests(prompts: Sequence[tuple[int, ...]], max_tokens: int) -> list[Request]:
    """Requests that end at max_tokens only."""
    params = SamplingParams(
        temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False, output_kind="delta"
    )
    return [
        Request(request_id=f"measure-{index}", prompt_token_ids=ids, sampling_params=params)
        for index, ids in enumerate(prompts)
    ]
