"""`shoestring bench engine`: throughput and latency by concurrency, beside the limits of the machine."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Model
from shoestring.cli.output import print_json, print_table
from shoestring.cli.weights import Weights, open_model
from shoestring.engine.offline.plan import find_checkpoint

if TYPE_CHECKING:
    from shoestring.engine.engine import Engine
    from shoestring.engine.measure import Limits, Throughput
    from shoestring.figures import Axes, Figure
    from shoestring.model.hf.checkpoint import Checkpoint

CHARACTERS_PER_TOKEN = 4
"""Of the text that is read for prompts; a tokenizer that needs more repeats some of it."""

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def bench() -> None:
    """Measure speed on this machine."""


@app.command()
def engine(
    model: Model,
    *,
    concurrency: Annotated[
        str, typer.Option(help="Numbers of concurrent requests, with commas.")
    ] = "1,2,4,8,16",
    prompt: Annotated[
        int, typer.Option("--input-len", "--prompt", min=1, help="Tokens of each prompt.")
    ] = 512,
    tokens: Annotated[
        int, typer.Option("--output-len", "--tokens", min=1, help="Tokens generated for each request.")
    ] = 64,
    weights: Weights = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this .png or .svg file.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure the engine's throughput and latency on text of Python's library, with and without drafts.

    Beside them are the memory bandwidth and the arithmetic that this machine reaches.
    """
    from shoestring import figures
    from shoestring.device import choose
    from shoestring.engine.measure import library_text, measure_limits

    numbers = read_numbers(concurrency)
    if plot is not None:
        figures.check_type(plot)
    checkpoint = find_checkpoint(model)
    settings = settings_for(checkpoint, max(numbers), prompt, tokens, device)
    llm = open_model(checkpoint, weights, settings, device, seqs=max(numbers))
    limits = measure_limits(choose(device))
    ids = llm.get_tokenizer().encode(library_text(CHARACTERS_PER_TOKEN * max(numbers) * prompt))
    rows = [row for number in numbers for row in measure(llm.engine, ids, number, prompt, tokens)]
    if as_json:
        print_json(
            {"model": model, "weights": weights, "limits": asdict(limits), "rows": [asdict(r) for r in rows]}
        )
    else:
        show(rows, limits)
    if plot is not None:
        figures.save(
            plot, lambda: draw(rows, limits, f"{model}: prompts of {prompt}, {tokens} tokens decoded")
        )


def measure(engine: "Engine", ids: list[int], number: int, prompt: int, tokens: int) -> "list[Throughput]":
    """Figures of `number` requests: without drafts, then with them if this model has drafts."""
    from shoestring.engine.measure import measure_throughput, without_drafts

    sizes = {"concurrency": number, "prompt_tokens": prompt, "output_tokens": tokens}
    with without_drafts(engine):
        rows = [measure_throughput(engine, ids, **sizes)]
    return rows if engine.speculation is None else [*rows, measure_throughput(engine, ids, **sizes)]


def settings_for(
    checkpoint: "Checkpoint", most: int, prompt: int, tokens: int, device: str
) -> dict[str, Any]:
    """EngineSettings that run `most` requests at once without preemption."""
    from shoestring.device import choose
    from shoestring.engine.load import cache_bytes
    from shoestring.engine.measure import longest_request
    from shoestring.engine.settings import EngineSettings
    from shoestring.errors import ConfigError
    from shoestring.model.memory import PAGE_SIZE

    rows = max(EngineSettings.max_num_batched_tokens, 2 * most)
    settings = EngineSettings(max_num_seqs=most, max_num_batched_tokens=rows, enable_prefix_caching=False)
    longest = longest_request(settings, most, prompt, tokens)
    config, dtype = checkpoint.config, choose(device).compute_dtype
    if longest > config.max_position_embeddings:
        raise ConfigError(
            f"{most} prompts of {prompt} and {tokens} tokens need a context of {longest:,}; the model has "
            f"{config.max_position_embeddings:,}; take a smaller --input-len or --output-len"
        )
    return {
        "max_num_batched_tokens": rows,
        "enable_prefix_caching": False,
        "max_model_len": longest,
        "kv_cache_memory_bytes": cache_bytes(config, settings, dtype, most * (longest + PAGE_SIZE)),
    }


def read_numbers(text: str) -> list[int]:
    """Numbers from a text such as '1,2,4'; raises ConfigError for anything else."""
    from shoestring.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise ConfigError(
            f"--concurrency {text!r} must be numbers from 1 to 1024 with commas between, such as 1,4,16"
        )
    return sorted({int(part) for part in parts})


def show(rows: "list[Throughput]", limits: "Limits") -> None:
    """Print a table; times are in milliseconds, as median and 95th percentile."""
    titles = [
        "requests", "drafts", "prompt tok/s", "output tok/s", "first token ms", "95%", "between ms", "95%",
        "read GB/s", "prompt GFLOP/s", "output GFLOP/s",
    ]  # fmt: skip
    cells = [
        [
            str(row.concurrency),
            drafts_of(row),
            f"{row.prompt_tokens_per_s:,.1f}",
            f"{row.output_tokens_per_s:,.1f}",
            f"{row.first_token_s * 1e3:,.0f}",
            f"{row.first_token_s_p95 * 1e3:,.0f}",
            f"{row.between_tokens_s * 1e3:,.1f}",
            f"{row.between_tokens_s_p95 * 1e3:,.1f}",
            f"{row.read_bytes_per_s / 1e9:.2f}",
            f"{row.prompt_flops_per_s / 1e9:,.1f}",
            f"{row.output_flops_per_s / 1e9:,.1f}",
        ]
        for row in rows
    ]
    print_table(titles, cells)
    int8 = (
        "" if limits.int8_ops_per_s is None else f", int8 products {limits.int8_ops_per_s / 1e9:,.0f} GOP/s"
    )
    print(
        f"\nthis machine, measured now: memory reads {limits.read_bytes_per_s / 1e9:.1f} GB/s, "
        f"float products {limits.float_flops_per_s / 1e9:,.0f} GFLOP/s{int8}"
    )


def drafts_of(row: "Throughput") -> str:
    """Whether drafts were made, and the share that was accepted."""
    if not row.drafts:
        return "none"
    return "no use" if row.acceptance is None else f"{row.acceptance:.0%} accepted"


def draw(rows: "list[Throughput]", limits: "Limits", title: str) -> "Figure":
    """Four panels over concurrency: speed, latency, and bytes and arithmetic beside the machine's limits."""
    from shoestring import figures
    from shoestring.figures import BLUE, GREEN, RED

    figure = figures.new_figure(10, 6.4, title)
    speed, latency, reads, products = (figure.add_subplot(2, 2, n) for n in range(1, 5))
    drafted, rows = [row for row in rows if row.drafts], [row for row in rows if not row.drafts]
    prompts, output = ("prompt_tokens_per_s", 1, RED), ("output_tokens_per_s", 1)
    _lines(speed, rows, "Tokens per second", {"prompts": prompts, "output": (*output, BLUE)})
    if drafted:
        _lines(speed, drafted, "Tokens per second", {"output with drafts": (*output, GREEN)})
    _lines(
        latency,
        rows,
        "Latency in milliseconds",
        {
            "first token": ("first_token_s", 1e3, RED),
            "between tokens": ("between_tokens_s", 1e3, BLUE),
            "between tokens, 95%": ("between_tokens_s_p95", 1e3, GREEN),
        },
    )
    _lines(reads, rows, "GB/s read while decoding", {"read": ("read_bytes_per_s", 1e-9, BLUE)})
    _lines(
        products,
        rows,
        "GFLOP/s",
        {"prompts": ("prompt_flops_per_s", 1e-9, RED), "output": ("output_flops_per_s", 1e-9, BLUE)},
    )
    _limit(reads, "memory", limits.read_bytes_per_s)
    _limit(products, "float products", limits.float_flops_per_s)
    if limits.int8_ops_per_s is not None:
        _limit(products, "int8 products", limits.int8_ops_per_s, "--")
    for axes in (speed, latency, products):
        figures.logarithmic(axes)
    reads.set_ylim(bottom=0)
    for axes in (speed, latency, reads, products):
        axes.legend()
    return figure


def _lines(
    axes: "Axes", rows: "list[Throughput]", title: str, series: dict[str, tuple[str, float, str]]
) -> None:
    axes.set_title(title)
    axes.set_xlabel("concurrent requests")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    for label, (name, unit, color) in series.items():
        values = [getattr(row, name) * unit for row in rows]
        axes.plot([row.concurrency for row in rows], values, "o-", color=color, markersize=4, label=label)


def _limit(axes: "Axes", name: str, per_s: float, style: str = ":") -> None:
    from shoestring.figures import INK

    axes.axhline(per_s / 1e9, color=INK, linestyle=style, linewidth=1, label=f"{name} ({per_s / 1e9:,.1f})")
