"""GRPOConfig: all settings that change the result of reinforcement learning.

Names and meanings are those of TRL's GRPOConfig. What differs, and why:

| Name | In TRL | Reason |
|---|---|---|
| num_prompts | generation_batch_size / num_generations | the same for any number of processes |
| steps, eval_every, save_every | max_steps, eval_steps, save_steps | the same words in every recipe |
| max_tokens | max_completion_length | vLLM's name, as for all sampling here |
| micro_tokens | per_device_train_batch_size | answers differ in length; memory depends on tokens |
| steps_per_generation | also counts accumulation steps | here only optimizer steps |
| no num_iterations | passes over the same answers | each answer is learned once, as in R1 |
| dynamic_sampling | not there | DAPO's name |
| advantage | scale_rewards | leave-one-out is a third way |
| note, tags | run_name | a text and words for whoever looks at runs later |
| loss.loss_type "gspo" | importance_sampling_level | a paper's objective by its name |
| loss.epsilon_low | epsilon | beside epsilon_high |
| loss.negative_scale | not there | our own experiment |
| ref_model_sync_steps | with ref_model_mixup_alpha | the reference becomes the policy, as in R1 |
| overlong | not there | what to do with a prompt that does not fit |
| keep_routing | not there | DeepSeek-V3.2's name |
| min_lr_ratio | min_lr_rate in lr_scheduler_kwargs | the schedule is always a cosine |
| optim | learning_rate, adam_beta1, adam_epsilon, optim | PyTorch's names, in a table of their own |
| model, tasks, prompt, reward | arguments of the trainer | a recipe is the whole run |
| lora | peft_config | a table of the recipe, as for sft |
| price | not there | for the receipt |
"""

import math
from dataclasses import dataclass, field
from typing import Any

from shoestring.errors import ConfigError
from shoestring.model.lora import LoraConfig
from shoestring.rl.advantage import AdvantageKind
from shoestring.rl.losses import PolicyLossConfig
from shoestring.tasks.custom.judge import CAN_CHANGE as JUDGE_CAN_CHANGE
from shoestring.tasks.custom.judge import JudgeConfig
from shoestring.tokenizer.overlong import Overlong
from shoestring.tokenizer.questions import PromptStyle
from shoestring.train.optim import OptimConfig
from shoestring.train.report.receipt import Price
from shoestring.train.runs.recipe import RunConfig


@dataclass(frozen=True, kw_only=True)
class TaskShare:
    """A task of a run, and its share of the problems."""

    name: str
    """A task by name (countdown, gsm8k, reasoning_gym:<generator>...), or Python of your own: FILE.py,
    FILE.py:NAME or module:NAME, a task's class or reward functions (with options.data, their problems)."""
    share: float = 1.0
    """Frequency of its problems, relative to those of the other tasks."""
    options: dict[str, Any] = field(default_factory=dict)
    """The task's own fields."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Rewards that are added to the task's own."""

    format: float = 0.0
    """Weight of the thinking format (R1-Zero: as much as accuracy, arXiv 2501.12948 section 2.2.2)."""
    language: str = ""
    """Language that the thinking should be in, en or zh; empty: any."""
    language_weight: float = 0.1
    """Weight of the share of its words in the thinking (added, as in R1 section 2.3.2)."""
    functions: tuple[str, ...] = ()
    """Reward functions as TRL has them: `file.py:name`, `file.py` (all in it) or `module:name`."""
    weights: tuple[float, ...] = ()
    """One for each function (TRL's reward_weights); empty: all 1."""
    judge: JudgeConfig | None = None
    """A language model that grades each answer by a rubric."""
    model: str = ""
    """A reward model, a folder or a hub name: the sigmoid of its score of the answer, without the thinking
    (R1 section 2.3.4)."""
    model_weight: float = 1.0
    model_tasks: tuple[str, ...] = ()
    """Tasks that it rewards in place of their own program, as R1's general ones; empty: all, beside it."""
    model_steps: int = 0
    """Steps at the end in which it is used (R1: 400 of 1,700); 0: all."""

    def __post_init__(self) -> None:
        if not 0.0 < self.model_weight < math.inf:
            raise ConfigError(f"reward.model_weight = {self.model_weight} is not a number over 0")
        if self.model_steps < 0:
            raise ConfigError(f"reward.model_steps = {self.model_steps} must be at least 0")
        if self.model_tasks and not self.model:
            raise ConfigError("reward.model_tasks needs a reward model; name its folder with reward.model")


@dataclass(frozen=True, kw_only=True)
class PolicyOptim(OptimConfig):
    """OptimConfig with defaults for reinforcement learning."""

    lr: float = 3e-6
    """R1-Zero's (arXiv 2501.12948, section 2.1); tiny models take a hundred times more."""
    muon_lr: float = 1e-4
    beta2: float = 0.99
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(RunConfig):
    """Group relative policy optimization of a model on tasks with verifiable rewards."""

    model: str
    """A model: a folder or a hub name (org/name)."""
    tasks: tuple[TaskShare, ...]
    steps: int = 1000
    num_prompts: int = 32
    """Problems in a step (R1-Zero: 32)."""
    num_generations: int = 16
    """Answers to each problem, the papers' G (R1-Zero: 16)."""
    max_tokens: int = 1024
    """Longest answer, as vLLM's max_tokens; TRL calls it max_completion_length."""
    overlong: Overlong = "filter"
    """Problems whose prompts do not fit into the context: filter (leave out, count), truncate or error."""
    temperature: float = 1.0
    dynamic_sampling: int = 0
    """Further rounds of sampling, to replace groups whose rewards are all equal (DAPO section 3.2)."""
    steps_per_generation: int = 1
    """Optimizer steps into which a step's answers are split (R1-Zero: 16); the later ones are off-policy."""
    keep_routing: bool = True
    """Train each token with the experts that it had in the engine (DeepSeek-V3.2, section 3.1)."""
    advantage: AdvantageKind = "dr_grpo"
    """Comparison of an answer with its group; see rl/advantage.py."""
    ref_model_sync_steps: int = 400
    """Steps after which the policy becomes the reference of the KL (R1-Zero: 400)."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises; it then falls by a cosine."""
    min_lr_ratio: float = 0.1
    """Learning rate at the end, as a share of its peak."""
    micro_tokens: int = 0
    """Tokens in one forward pass, padding included: bounds memory, not the result. 0: what the machine's
    memory has room for (train/memory.py)."""
    eval_every: int = 50
    save_every: int = 25
    prompt: PromptStyle = field(default_factory=PromptStyle)
    reward: RewardConfig = field(default_factory=RewardConfig)
    loss: PolicyLossConfig = field(default_factory=PolicyLossConfig)
    optim: PolicyOptim = field(default_factory=PolicyOptim)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """With a rank over 0 only adapters are trained; the KL's reference is the base until it is renewed."""
    price: Price = field(default_factory=Price)

    CAN_CHANGE = (
        RunConfig.CAN_CHANGE
        | {"steps", "micro_tokens", "eval_every", "save_every", "price"}
        | {f"reward.judge.{name}" for name in JUDGE_CAN_CHANGE}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ConfigError("tasks is empty; name one task or more, such as [[tasks]] name = 'countdown'")
        names = [task.name for task in self.tasks]
        if others := [name for name in self.reward.model_tasks if name not in names]:
            raise ConfigError(f"reward.model_tasks names {others[0]!r}; the tasks are {', '.join(names)}")
        if len(set(names)) < len(names):
            raise ConfigError(f"tasks names one twice: {', '.join(names)}; give each once, with its share")
        if any(not 0.0 < task.share < math.inf for task in self.tasks):
            raise ConfigError("a task's share is a number over 0; leave out a task that should not be drawn")
        counts = ("steps", "num_prompts", "max_tokens", "steps_per_generation", "ref_model_sync_steps")
        for name in (*counts, "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        if not 2 <= self.num_generations <= 128:
            raise ConfigError(
                f"num_generations = {self.num_generations} must be from 2 to 128: answers are compared"
            )
        for name in ("dynamic_sampling", "warmup_steps", "micro_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 0")
        if not 0.01 <= self.temperature <= 10.0:
            raise ConfigError(f"temperature = {self.temperature} is not between 0.01 and 10")
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            raise ConfigError(f"min_lr_ratio = {self.min_lr_ratio} is not between 0 and 1")
