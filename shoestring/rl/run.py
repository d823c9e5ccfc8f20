"""A run of reinforcement learning: its parts, and saving and restoring them."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from shoestring import config as configs
from shoestring.cost.step import Flops
from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.engine.conversation.tool_use import ToolUse, tool_use
from shoestring.engine.engine import Engine
from shoestring.engine.paged_cache import available_bytes
from shoestring.engine.policy_engine import PolicyEngine
from shoestring.engine.settings import EngineSettings
from shoestring.errors import CheckpointError, ConfigError, TokenizerError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import copy_tokenizer, save_model
from shoestring.model.hf.named import open_model
from shoestring.model.hf.reward import RewardScorer
from shoestring.model.memory import PAGE_SIZE, cache_bytes
from shoestring.model.transformer import Transformer
from shoestring.rl.problems import ProblemStream
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.reference import Reference
from shoestring.rl.vocabulary import Vocabulary
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.overlong import PromptMaker
from shoestring.tokenizer.questions import prompt_ids
from shoestring.train import checkpoint, state
from shoestring.train.finish import write_model_folder
from shoestring.train.memory import micro_tokens
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.parallel import Ranks
from shoestring.train.report import receipt
from shoestring.train.runs.recipe import check_past
from shoestring.train.runs.trainable import load_trainable, merged, open_trainable, write_adapter

log = logging.getLogger(__name__)

MAX_SEQUENCES = 512
"""Answers sampled at the same time; the others of a step wait."""
PROMPT_TOKENS = 1024
"""Tokens of a prompt that the cache has room for; longer ones take the room of others."""


@dataclass
class Run:
    """The parts of a run; a checkpoint restores those that change."""

    config: GRPOConfig
    out: Path
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    """The ids over which the policy's probabilities are."""
    model: Transformer
    reference: Reference | None
    """Earlier weights for the KL term; None without one."""
    engine: Engine
    optimizers: Optimizers
    template: Template | None
    """The chat template; None where the recipe has a prompt format."""
    problems: ProblemStream
    scorer: RewardScorer | None
    """The reward model of the recipe, if it has one."""
    ranks: Ranks
    """The processes of the run; each has all parts."""
    step: int = 0
    answers: int = 0
    tokens: int = 0
    """Tokens sampled so far."""
    flops: Flops = field(default_factory=dict)
    segments: list[receipt.Segment] = field(default_factory=list)
    prompts: PromptMaker = field(init=False)
    """Makes the problems' prompts."""
    tools: dict[str, ToolUse] = field(init=False)
    """The use of tools, of the tasks that have some."""

    def __post_init__(self) -> None:
        self.prompts = PromptMaker(
            make=partial(
                prompt_ids, tokenizer=self.tokenizer, template=self.template, style=self.config.prompt
            ),
            tokenizer=self.tokenizer,
            context=self.engine.max_model_len,
            max_tokens=self.config.max_tokens,
            overlong=self.config.overlong,
        )
        thinking = self.config.prompt.thinking
        uses = {
            name: tool_use(name, task, self.tokenizer, self.template, thinking=thinking)
            for name, task in self.problems.tasks.items()
        }
        self.tools = {name: use for name, use in uses.items() if use is not None}

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.steps

    @property
    def name(self) -> str:
        """Names of the first model and of the run, for titles."""
        return f"{Path(self.config.model).name}: {self.out.resolve().name}"


def build(
    config: GRPOConfig,
    runtime: Runtime,
    out: Path,
    ranks: Ranks,
    *,
    resume: bool,
    say: Callable[[str], None] = log.info,
) -> Run:
    """The run at its start or, on `resume`, at its newest checkpoint; `say` shows what takes long.

    Raises ConfigError if the processes do not start with the same recipe and the same weights.
    """
    problems = ProblemStream(config)
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    newest = checkpoint.latest(out / "checkpoints") if resume else None
    weights = open_trainable(config.model, config.lora, newest)
    weights.check_vocabulary()
    if not config.micro_tokens:
        is_checkpointing = config.gradient_checkpointing
        size = micro_tokens(weights.config, runtime, gradient_checkpointing=is_checkpointing)
        config = replace(config, micro_tokens=size)
    check_past(config, out)
    scorer = _scorer(config, runtime, say)
    say(f"loading {config.model}")
    model = load_trainable(weights, config.lora, runtime, seed=config.seed, newest=newest)
    model.gradient_checkpointing = config.gradient_checkpointing
    own = out / "tokenizer"
    if ranks.is_first and not (own / "tokenizer.json").is_file():
        own.mkdir(parents=True, exist_ok=True)
        copy_tokenizer(weights.tokenizer_folder, own)
    ranks.agree("the recipe or the step they go on from", f"{'' if newest is None else newest.name} {config}")
    ranks.agree_on_weights(model)
    tokenizer_files = Checkpoint.open(own)
    run = Run(
        config=config,
        out=out,
        tokenizer=tokenizer_files.tokenizer,
        vocabulary=Vocabulary(tokenizer_files.tokenizer, model.config.vocab_size, runtime.device),
        model=model,
        reference=Reference(model, is_adapted=config.lora.rank > 0) if config.loss.beta else None,
        engine=PolicyEngine(model, tokenizer_files.tokenizer, _engine_settings(config, model)),
        optimizers=build_optimizers(model, config.optim),
        template=_template(tokenizer_files, config),
        problems=problems,
        scorer=scorer,
        ranks=ranks,
    )
    if newest is not None:
        _restore(run, newest)
    elif resume:
        log.warning("%s has no checkpoint yet: the run starts from its beginning", out)
    if ranks.is_first:
        write_atomic(out / "config.toml", configs.dumps(config))
    return run


def save(run: Run) -> None:
    """Write a checkpoint: the model or the adapter alone, and the trainer's state with the reference.

    The first process writes it while the others wait: none ends before it is complete.
    """

    def write(folder: Path) -> None:
        (write_policy_adapter if run.config.lora.rank else write_model)(run, folder)
        reference = None if run.reference is None else run.reference.state_dict()
        tree = {"optimizer": run.optimizers.state_dict(), "reference": reference}
        tensors, values = state.flatten(tree)
        counters = {
            "step": run.step,
            "answers": run.answers,
            "tokens": run.tokens,
            "flops": run.flops,
            "questions": run.problems.num_drawn,
            "overlong": run.prompts.num_overlong,
            "segments": [asdict(segment) for segment in run.segments],
        }
        state.save_state(folder / "trainer", tensors, {"state": values, "counters": counters})

    run.ranks.agree_on_weights(run.model)
    if run.ranks.is_first:
        checkpoint.save(run.out / "checkpoints", run.step, write)
    run.ranks.barrier()


def write_model(run: Run, folder: Path) -> None:
    """Write the current policy with its tokenizer, chat template and model card into a new folder."""
    config = run.config
    names = ", ".join(task.name for task in config.tasks)
    lineage = (
        f"`{Path(config.model).name}`, reinforced by `shoestring rl` for {run.step:,} steps of "
        f"{config.num_prompts} questions x {config.num_generations} answers "
        f"(GRPO, {config.loss.loss_type}) on {names}, whose rewards "
        f"{'a program and a reward model compute' if config.reward.model else 'a program computes'} "
        f"(seed {config.seed})."
    )
    save_model(run.model, folder, tokenizer_files=run.out / "tokenizer", lineage=lineage, name=run.name)


def write_policy_adapter(run: Run, folder: Path) -> None:
    """Write the policy's adapter with its tokenizer and chat template into a new folder."""
    write_adapter(run.model, folder, base=run.config.model, tokenizer=run.out / "tokenizer")


def write_result(run: Run) -> None:
    """Leave the final policy in `out/model`; after a LoRA run merged, and the adapter in `out/adapter`."""
    if run.config.lora.rank:
        write_model_folder(run.out / "adapter", partial(write_policy_adapter, run))
        run.model = merged(run.model)
    write_model_folder(run.out / "model", partial(write_model, run))


def _restore(run: Run, folder: Path) -> None:
    """Restore all but the weights, which are loaded from the checkpoint already."""
    tensors, values = state.load_state(folder / "trainer")
    tree, counters = state.unflatten(tensors, values["state"]), values["counters"]
    run.optimizers.load_state_dict(tree["optimizer"])
    if (tree["reference"] is None) != (run.reference is None):
        raise CheckpointError(f"{folder} and the recipe disagree on loss.beta; use the run's own recipe")
    if run.reference is not None:
        run.reference.load_state_dict(tree["reference"])
    run.step, run.answers = counters["step"], counters["answers"]
    run.tokens, flops = counters["tokens"], counters["flops"]
    run.flops = flops if isinstance(flops, dict) else {"earlier": flops}  # older versions had their sum
    run.problems.draw(counters["questions"])
    run.prompts.num_prompts = counters["questions"]
    run.prompts.num_overlong = counters.get("overlong", 0)
    run.segments = [receipt.Segment.of(segment) for segment in counters["segments"]]


def _scorer(config: GRPOConfig, runtime: Runtime, say: Callable[[str], None]) -> RewardScorer | None:
    if not config.reward.model:
        return None
    say(f"loading the reward model {config.reward.model}")
    return RewardScorer(open_model(config.reward.model), runtime)


def _template(tokenizer_files: Checkpoint, config: GRPOConfig) -> Template | None:
    """The chat template; None if the recipe has a prompt format instead."""
    if config.prompt.format:
        return None
    try:
        return tokenizer_files.template
    except TokenizerError as error:
        raise ConfigError(f"{error}; or set prompt.format to a text with {{question}}") from None


def _engine_settings(config: GRPOConfig, model: Transformer) -> EngineSettings:
    """The engine's limits: its cache holds all answers at once, or one of the model's whole context."""
    sequences = min(config.num_prompts * config.num_generations, MAX_SEQUENCES)
    prompts = -(-sequences // config.num_generations)
    tokens = sequences * (config.max_tokens + PAGE_SIZE) + prompts * PROMPT_TOKENS
    tokens = max(tokens, model.config.max_position_embeddings)
    num_bytes = cache_bytes(
        model.config, tokens, model.config.num_hidden_layers, model.compute_dtype.itemsize
    )
    free = available_bytes(model.device)
    return EngineSettings(
        kv_cache_memory_bytes=num_bytes if free is None else min(num_bytes, free // 2),
        max_num_seqs=sequences,
        max_num_batched_tokens=sequences + 128,
        speculation="off",  # with so many sequences a draft costs more than it saves
        enable_return_routed_experts=config.keep_routing,
    )
