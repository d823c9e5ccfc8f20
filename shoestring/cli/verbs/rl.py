"""`shoestring rl`: reinforcement learning with verifiable rewards: one run, or all stages of a recipe."""

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Device, Json, Out, Quiet, Settings
from shoestring.cli.output import print_fields, print_json, print_table
from shoestring.cli.recipes import own_recipe

if TYPE_CHECKING:
    from shoestring.device import Runtime
    from shoestring.rl.run import Run
    from shoestring.rl.stages import RecipeConfig, ScoreConfig


def rl(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe (TOML) of one run or of [[stages]], such as those in recipes/."),
    ] = None,
    *,
    out: Out = Path("runs/rl"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    until: Annotated[str, typer.Option(help="Stop after this stage; --resume continues with the next.")] = "",
    settings: Settings = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a model by reinforcement learning (GRPO) on tasks with verifiable answers.

    Ctrl-C saves the run and exits with 75; --resume continues it. Without a recipe: --set model=MODEL
    --set 'tasks=[{name="countdown"}]'.
    """
    from shoestring.device import choose
    from shoestring.errors import ConfigError
    from shoestring.rl.stages import RecipeConfig

    config = load_recipe(recipe, out, resume, settings)
    runtime = choose(device)
    if isinstance(config, RecipeConfig):
        report = run_stages(config, runtime, out, resume=resume, until=until, quiet=quiet)
    elif until:
        raise ConfigError("--until names a stage, and this recipe has none")
    else:
        from shoestring.rl.grpo import grpo

        report = grpo(config, runtime, out, resume=resume, quiet=quiet)
        if runtime.rank:  # the first process speaks for all
            return
    if as_json:
        print_json(report)
    elif isinstance(config, RecipeConfig):
        print_stages(report)
        print(f"report: {out / 'report.html'}")
    else:
        print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
        print(f"the model is in {out / 'model'}; try: shoestring run {out / 'model'}")


def load_recipe(recipe: Path | None, out: Path, resume: bool, settings: list[str]) -> Any:
    """A GRPOConfig, or a RecipeConfig where the file has stages; on --resume the run's own."""
    from shoestring import config as configs
    from shoestring.errors import ConfigError
    from shoestring.rl.recipe import GRPOConfig
    from shoestring.rl.stages import RecipeConfig

    if resume:
        if settings or (recipe is not None and not same_recipe(recipe, out)):
            raise ConfigError(
                f"--resume takes the recipe from {out / 'config.toml'}; leave out the recipe and --set"
            )
        recipe = own_recipe(out)
    if recipe is None:
        return configs.build(GRPOConfig, configs.override({}, settings), where="--set")
    return configs.load(RecipeConfig if has_stages(recipe) else GRPOConfig, recipe, settings)


def has_stages(recipe: Path) -> bool:
    """Whether a recipe is one of stages; files that cannot be read are reported by who loads them."""
    try:
        return "stages" in tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def same_recipe(recipe: Path, out: Path) -> bool:
    """Whether the run in `out` was made with this very recipe."""
    from shoestring import config as configs
    from shoestring.rl.recipe import GRPOConfig
    from shoestring.rl.stages import RecipeConfig

    own, cls = out / "config.toml", RecipeConfig if has_stages(recipe) else GRPOConfig
    return own.is_file() and configs.load(cls, recipe) == configs.load(cls, own)


def run_stages(
    config: "RecipeConfig", runtime: "Runtime", out: Path, *, resume: bool, until: str, quiet: bool
) -> dict[str, Any]:
    """Run a recipe's stages with scores, and leave report.html with its pictures."""
    from shoestring.cli.terminal import printable
    from shoestring.rl.pictures import write_report
    from shoestring.rl.pipeline import Watch, run_recipe

    report = run_recipe(
        config,
        runtime,
        out,
        resume=resume,
        until=until,
        quiet=quiet,
        watch=Watch(
            score=lambda folder, stage: score_model(folder, stage.prompt, config.score, runtime),
            on_eval=None if not config.score.tasks else lambda run: score_live(run, config.score),
            say=(lambda text: None) if quiet else (lambda text: print(printable(text), file=sys.stderr)),
        ),
    )
    write_report(report, out)
    return report


def score_model(
    folder: Path, prompt: dict[str, Any], config: "ScoreConfig", runtime: "Runtime"
) -> dict[str, Any]:
    """A model folder's scores: the main task's as they are, the others' by name; with its size.

    `prompt`, if it says anything, takes the place of the tasks' own.
    """
    from shoestring.engine.llm import LLM
    from shoestring.engine.load import load_engine
    from shoestring.engine.settings import EngineSettings
    from shoestring.model.cost import parameters
    from shoestring.model.hf.checkpoint import Checkpoint

    settings = EngineSettings(max_num_seqs=256, speculation="off")
    checkpoint = Checkpoint.open(folder)
    llm = LLM.of(load_engine(checkpoint, runtime, settings=settings), checkpoint)
    tasks = {name: {**data, "prompt": prompt} if prompt else data for name, data in config.tasks.items()}
    scores = {name: _score(llm, name, data, folder) for name, data in tasks.items()}
    main = next(iter(scores.values()), {})
    others = {name: score["pass_at_1"] for name, score in list(scores.items())[1:]}
    return {"parameters": parameters(llm.engine.model.config).total, **main, "other_tasks": others}


def score_live(run: "Run", config: "ScoreConfig", problems: int = 64) -> dict[str, Any]:
    """A quick look at the policy while it learns: pass@1 of a few held-out problems."""
    from shoestring.engine.llm import LLM

    name, data = next(iter(config.tasks.items()))
    few = {**data, "problems": problems, "samples": 2, "k": [1], "greedy": False}
    score = _score(LLM.of(run.engine), name, few, None, run.template)
    return {"eval_accuracy": score["pass_at_1"], "eval_thinking_tokens": score["mean_thinking_tokens"]}


def _score(
    llm: Any, name: str, data: dict[str, Any], folder: Path | None, template: Any = None
) -> dict[str, Any]:
    """One task's score; with a folder, its answers go beside it."""
    from shoestring import config as configs
    from shoestring.evals.passk import TaskEvalConfig, choose_problems, evaluate_task
    from shoestring.tasks.load import load_task

    config = configs.build(TaskEvalConfig, data, where=f"score.tasks.{name}")
    task = load_task(name, config.options)
    if template is None and not config.prompt.format:
        template = llm.template
    score = evaluate_task(
        llm,
        task,
        choose_problems(task, config),
        config,
        template=template,
        transcripts=None if folder is None else folder.parent / f"answers-{name}.jsonl",
    )
    data = score.to_json()
    flat = {f"pass_at_{k}": v for k, v in data.pop("pass_at_k").items()}
    return {**data, **flat, **{f"maj_at_{k}": v for k, v in data.pop("maj_at_k").items()}}


def print_stages(report: dict[str, Any]) -> None:
    """One line for each stage that has a model."""
    shares = ("pass_at_1", "maj_at_8", "greedy", "greedy_capped_share")
    titles = ("stage", "pass@1", "maj@8", "greedy", "looping", "thinking tokens", "seconds")
    rows = [
        (
            row["name"],
            *("-" if row.get(name) is None else f"{row[name]:.1%}" for name in shares),
            f"{row['mean_thinking_tokens']:.0f}",
            f"{row['seconds']:.0f}",
        )
        for row in report["stages"]
        if row.get("pass_at_1") is not None
    ]
    if rows:
        print_table(titles, rows)
