"""`shoestring eval`: score a model on text, on a task or on lm-evaluation-harness; repeat a score."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json
from shoestring.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from shoestring.device import Runtime
    from shoestring.engine.llm import LLM
    from shoestring.model.hf.checkpoint import Checkpoint

TEXT = "text"
HARNESS = "lm_eval:"
TOGETHER = 64
"""Sequences the engine works on at once; on a CPU this changes speed only."""
PROMPT_ROOM = 4096
"""Context beside an answer's tokens, for the question."""


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="A folder, org/name, org/name@revision or hf://org/name.")
    ] = None,
    *,
    task: Annotated[
        str | None,
        typer.Option(help="A task with verified answers, reasoning_gym:NAME or lm_eval:NAME[,NAME...]."),
    ] = None,
    source: Annotated[
        list[str], typer.Option(help="Text to score: folder, file, glob, dataset id or stdlib; repeatable.")
    ] = [],  # noqa: B006 (typer copies it)
    reproduce: Annotated[
        Path | None, typer.Option(help="Repeat the score in this file; exit with 3 unless it is the same.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", help="A setting, such as samples=8, options.numbers=4, above=0.8 or below=2; repeatable."
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="Write the score here (.json); a task's answers beside it (.jsonl).")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a model: bits per byte of text, pass@k and maj@k on a task, or tasks of lm-evaluation-harness.

    Text is what pretraining holds out of the same source. Settings that change a score are listed in the
    reference (TextEvalConfig, TaskEvalConfig, HarnessConfig) and kept with it, to repeat it by --reproduce.
    """
    from shoestring.errors import ConfigError

    if reproduce is not None:
        if task or source or settings:
            raise ConfigError(
                "--reproduce takes everything from its file; leave out --task, --source and --set"
            )
        score = repeat(reproduce, model, device)
    elif model is None:
        raise ConfigError("eval needs a model: a folder, org/name, or --reproduce with the file of a score")
    elif task and source:
        raise ConfigError("--task and --source are two scores; ask for one at a time")
    else:
        if out is not None and out.suffix != ".json":
            raise ConfigError(f"--out {out} must be a file that ends in .json")
        name, config = read_config(task, source, settings)
        score = run_score(name, config, model, device, out)
    if out is not None:
        from shoestring.evals.manifest import write_score

        write_score(out, score)
    print_json(score) if as_json else show(score)
    check(score)


def read_config(task: str | None, source: list[str], settings: list[str]) -> tuple[str, Any]:
    """The score's name and its settings; raises ConfigError for a wrong one."""
    from shoestring.config import override

    data = override({}, settings)
    if task is None:
        data |= {"sources": source} if source else {}
    name = task or TEXT
    return name, build_config(name, data, "--set")


def build_config(name: str, data: dict[str, Any], where: str) -> Any:
    """TextEvalConfig, HarnessConfig or TaskEvalConfig, by the score's name."""
    from shoestring.config import build
    from shoestring.evals.harness import HarnessConfig
    from shoestring.evals.passk import TaskEvalConfig
    from shoestring.evals.perplexity import TextEvalConfig

    cls: Any = TextEvalConfig if name == TEXT else TaskEvalConfig
    return build(HarnessConfig if name.startswith(HARNESS) else cls, data, where)


def run_score(name: str, config: Any, model: str, device: str, out: Path | None) -> dict[str, Any]:
    """The manifest of a score with its result."""
    from shoestring.cli.weights import find_checkpoint
    from shoestring.device import choose
    from shoestring.evals.manifest import describe, identify

    runtime, checkpoint = choose(device), find_checkpoint(model)
    where = {"device": runtime.device.type, "dtype": str(runtime.compute_dtype).removeprefix("torch.")}
    score = describe(name, model=identify(model, checkpoint.folder), config=config, runtime=where)
    if name == TEXT:
        result = score_text(checkpoint, config, runtime)
    elif name.startswith(HARNESS):
        from shoestring.evals.harness import evaluate_harness

        names = name.removeprefix(HARNESS).split(",")
        result = evaluate_harness(open_scored(checkpoint, config.max_tokens, device), names, config)
    else:
        result = score_task(checkpoint, name, config, device, out)
    return {**score, "result": result}


def open_scored(checkpoint: "Checkpoint", max_tokens: int, device: str) -> "LLM":
    """The model with a context that holds prompts and such answers, as far as its own does."""
    from shoestring.cli.weights import CONTEXT, open_model

    longest = checkpoint.config.max_position_embeddings
    context = min(max(CONTEXT, max_tokens + PROMPT_ROOM), longest)
    return open_model(checkpoint, None, {"max_model_len": context}, device, seqs=TOGETHER)


def score_text(checkpoint: "Checkpoint", config: Any, runtime: "Runtime") -> dict[str, Any]:
    """Bits per byte on what pretraining holds out of the sources."""
    from shoestring.cli.verbs.run import load
    from shoestring.data.corpus import DataConfig
    from shoestring.data.dataset import prepare
    from shoestring.durable import cache_folder

    loaded, tokenizer = load(checkpoint, runtime)
    dataset = prepare(DataConfig(sources=config.sources, fim_rate=0.0), tokenizer, cache_folder("data"))
    return heldout_report(loaded, dataset, config.seq_len, config.max_tokens)


def score_task(
    checkpoint: "Checkpoint", name: str, config: Any, device: str, out: Path | None
) -> dict[str, Any]:
    """pass@k and its siblings; answers with their rewards go to a .jsonl beside `out`."""
    from shoestring.evals.manifest import problems_sha256
    from shoestring.evals.passk import choose_problems, evaluate_task
    from shoestring.tasks.load import load_task

    task = load_task(name, config.options)
    examples = choose_problems(task, config)  # what is wrong with the task shows before the model is read
    llm = open_scored(checkpoint, config.max_tokens, device)
    score = evaluate_task(
        llm,
        task,
        examples,
        config,
        template=llm.template if llm.has_template and not config.prompt.format else None,
        transcripts=None if out is None else out.with_suffix(".jsonl"),
        show=True,
    )
    return {**score.to_json(), "problems_sha256": problems_sha256(examples)}


def repeat(path: Path, model: str | None, device: str) -> dict[str, Any]:
    """Run a score again, on the very same model; the new one says what `differs`."""
    from shoestring.cli.weights import find_checkpoint
    from shoestring.evals.manifest import check_model, differences, identify, read_score

    was = read_score(path)
    name = model or was["model"]["name"]
    config = build_config(was["name"], was["config"], str(path))
    check_model(was, identify(name, find_checkpoint(name).folder))
    now = run_score(was["name"], config, name, device, None)
    for part in ("runtime", "versions"):
        for difference in differences(was[part], now[part]):
            print(f"not as it was: {part} {difference}", file=sys.stderr)
    return {**now, "differs": [str(found) for found in differences(was["result"], now["result"])]}


def check(score: dict[str, Any]) -> None:
    """Raise ThresholdError for a repeated score that differs, or a threshold that is not met."""
    from shoestring.errors import ThresholdError

    if score.get("differs"):
        more = len(score["differs"]) - 1
        raise ThresholdError(
            f"the score is not the same: {score['differs'][0]}" + (f", and {more} more" if more else "")
        )
    above, below, result = score["config"].get("above"), score["config"].get("below"), score["result"]
    if above is not None and not result["pass_at_1"] >= above:
        raise ThresholdError(f"pass@1 of {result['pass_at_1']:.4f} does not reach {above}; train longer")
    if below is not None and not result["bits_per_byte"] < below:
        raise ThresholdError(
            f"{result['bits_per_byte']:.4f} bits per byte are not below {below}; train longer"
        )


def show(score: dict[str, Any]) -> None:
    """A score for people."""
    result = score["result"]
    if score["name"] == TEXT:
        print_fields(result)
    elif score["name"].startswith(HARNESS):
        rows = [
            [task, name, f"{value:.4f}"]
            for task, found in result.items()
            for name, value in found["figures"].items()
        ]
        print_table(["task", "figure", "value"], rows)
    else:
        print(f"{result['task']}: {result['problems']} problems, {result['samples']} answers to each")
        values = {
            f"{name}_{k}": result[f"{name}_k"][k]
            for name in ("pass_at", "maj_at")
            for k in result[f"{name}_k"]
        }
        values |= {name: value for name, value in result.items() if name in result["intervals"]} | values
        rows = [
            [name, f"{value:.4f}", *(f"{end:.4f}" for end in result["intervals"][name])]
            for name, value in values.items()
        ]
        print_table(["figure", "mean", "from", "to (95%)"], rows)
        if result["faults"]:
            print(f"answers without a verdict: {result['faults']}")
    if "differs" in score and not score["differs"]:
        print("the same as before, to the last bit")


def heldout_report(model: Any, dataset: Any, seq_len: int, max_tokens: int) -> dict[str, Any]:
    """Bits per byte of the model and of gzip and xz, on the very same documents."""
    from shoestring.data.dataset import evaluation_rows
    from shoestring.evals.perplexity import compressed_bits_per_byte, score

    rows = evaluation_rows(dataset.heldout, seq_len=seq_len, max_tokens=max_tokens)
    result = score(model, rows)
    heldout = list(dataset.store.texts("heldout"))
    compressed = compressed_bits_per_byte([heldout[number] for number in rows.documents])
    return {
        "bits_per_byte": result.bits_per_byte,
        **compressed,
        "tokens": result.tokens,
        "utf8_bytes": result.utf8_bytes,
        "documents": result.documents,
    }
