"""PreferenceConfig and RewardModelConfig: all settings that change the result of learning from preferences.

Names and meanings are those of TRL's DPOConfig, KTOConfig, CPOConfig, ORPOConfig and RewardConfig. What
differs, and why:

| Name | In TRL | Reason |
|---|---|---|
| model, data, tokenizer, template | arguments of the trainer | a recipe is the whole run |
| loss.loss_type | "sigmoid"; KTO, SimPO and ORPO have other trainers | papers' names, in one place |
| columns, thinking | not there | data as people have it (data/forms) |
| batch_size | per_device_train_batch_size | pairs (KTO: answers) in a step, on any machine |
| micro_tokens | gradient_accumulation_steps | answers differ in length; memory depends on tokens |
| epochs | num_train_epochs | as in every recipe |
| seq_len, overlong | max_length, always cut | pretraining's name; cutting is a choice |
| no precompute_ref_log_probs | off by default | always: the run starts as its own reference |
| eval_every, save_every | eval_steps, save_steps | the same words in every recipe |
| heldout_fraction | eval_dataset | a share of the same prompts |
| min_lr_ratio | min_lr_rate in lr_scheduler_kwargs | the schedule is always a cosine |
| optim | learning_rate, adam_beta1, lr_scheduler_type | PyTorch's names, in a table of their own |
| lora.rank, alpha, targets | r, lora_alpha, target_modules | targets also name kinds of layers |
| note, tags | run_name | a text and words for whoever looks at runs later |
| watts, price | not there | for the receipt |
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, get_args

from shoestring.data.forms.rendering import Thinking
from shoestring.errors import ConfigError
from shoestring.model.lora import LoraConfig
from shoestring.preferences.losses import PreferenceLossConfig
from shoestring.tokenizer.overlong import Overlong
from shoestring.train.optim import OptimConfig
from shoestring.train.report.receipt import Price
from shoestring.train.runs.recipe import RunConfig


@dataclass(frozen=True, kw_only=True)
class PreferenceOptim(OptimConfig):
    """OptimConfig with lower rates: preferences move a model that can talk already."""

    lr: float = 0.0
    """0: 1e-6 for a policy, as in TRL (Zephyr: 5e-7), 1e-5 for a reward model (R1's: 6e-6), and ten times as
    much for LoRA, whose matrices are small. A higher one soon leaves the reference far behind."""
    muon_lr: float = 1e-4
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super(PreferenceOptim, self if self.lr else replace(self, lr=1.0)).__post_init__()


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig(RunConfig):
    """A model that learns from answers of which some are better: the fields of both kinds of training."""

    LR: ClassVar[tuple[float, float]]
    """Learning rates where the recipe has none: of all weights, and of LoRA."""

    model: str
    """A model: a folder or a hub name (org/name)."""
    data: tuple[str, ...]
    """Files, folders or hub data sets (org/name) of rows with prompt, chosen and rejected, or, for KTO, with
    prompt, completion and label; see data/forms/pairs.py for their forms."""
    columns: dict[str, str] = field(default_factory=dict)
    """Columns of the data under other names: {chosen = "better"}."""
    epochs: float = 2.0
    """Passes over the preferences (TRL: 3, Zephyr: 1 to 3)."""
    batch_size: int = 0
    """Pairs in a step, or answers for KTO, at least 2. 0: 2 to 32, such that an epoch has 32 steps."""
    micro_tokens: int = 0
    """Tokens in one forward pass, padding included: bounds memory, not the result. 0: what the machine's
    memory has room for (train/memory.py)."""
    seq_len: int = 0
    """The longest prompt with an answer, in tokens. 0: 4,096, or the model's context if that is shorter."""
    overlong: Overlong = "filter"
    """Longer ones are left out and counted, their answers cut ("truncate"), or refused ("error")."""
    thinking: Thinking = "template"
    """reasoning_content is where the template writes it; inline: in the content, between think tags."""
    tokenizer: str = ""
    """A folder with tokenizer.json; empty: that of `model`."""
    template: str = ""
    """A chat template's folder or file; empty: that of `model`, or DeepSeek's where it has none."""
    heldout_fraction: float = 0.0
    """Share of the preferences that is scored and not learned from; a prompt is on one side."""
    warmup_ratio: float = 0.1
    """Share of the steps over which the learning rate rises; it then falls by a cosine."""
    min_lr_ratio: float = 0.1
    """Learning rate at the end, as a share of its peak."""
    eval_every: int = 50
    """Steps between evaluations; there is one at the end too."""
    save_every: int = 100
    """Steps between checkpoints; Ctrl-C saves one too."""
    watts: float | None = None
    """Power of the machine for the receipt, where it cannot be measured."""
    optim: PreferenceOptim = field(default_factory=PreferenceOptim)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """With a rank over 0 only adapters are trained, and the head of a reward model."""
    price: Price = field(default_factory=Price)

    CAN_CHANGE = RunConfig.CAN_CHANGE | {
        *("epochs", "micro_tokens", "eval_every", "save_every", "watts", "price")
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.optim.lr:
            lr = self.LR[1 if self.lora.rank else 0]
            object.__setattr__(self, "optim", replace(self.optim, lr=lr))
        for name in ("micro_tokens", "seq_len", "batch_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 0")
        for name in ("eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        for name, choices in (("overlong", get_args(Overlong)), ("thinking", get_args(Thinking))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} = {getattr(self, name)!r} is none of {', '.join(choices)}")
        if not self.data:
            raise ConfigError("data is empty; name a file of preferences with --set 'data=[\"FILE\"]'")
        if not 0.0 < self.epochs < math.inf:
            raise ConfigError(f"epochs = {self.epochs} is not a number over 0")
        if not 0.0 <= self.heldout_fraction < 1.0:
            raise ConfigError(f"heldout_fraction = {self.heldout_fraction} is not at least 0 and under 1")
        for name in ("warmup_ratio", "min_lr_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} = {getattr(self, name)} is not between 0 and 1")
        if self.watts is not None and not 0.0 < self.watts < math.inf:
            raise ConfigError(f"watts = {self.watts} is not a number over 0; leave it out if unknown")

    @property
    def loss_type(self) -> str:
        """The name of the objective."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig(ComparisonConfig):
    """Learning from preferences: a policy that writes the better answers."""

    LR: ClassVar[tuple[float, float]] = (1e-6, 1e-5)

    loss: PreferenceLossConfig = field(default_factory=PreferenceLossConfig)

    @property
    def loss_type(self) -> str:
        return self.loss.loss_type

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss.loss_type == "kto" and self.batch_size == 1:
            raise ConfigError(
                "batch_size = 1, but KTO compares answers of a batch; set it to 2 or more, or 0"
            )


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(ComparisonConfig):
    """A reward model: a language model with a head that gives the better answer of a pair more."""

    LR: ClassVar[tuple[float, float]] = (1e-5, 1e-4)

    center_rewards_coefficient: float = 0.01
    """Weight of (the sum of a pair's rewards)^2, which keeps them around 0 (arXiv 2312.09244, appendix B)."""

    @property
    def loss_type(self) -> str:
        return "bradley-terry"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.center_rewards_coefficient < math.inf:
            value = self.center_rewards_coefficient
            raise ConfigError(f"center_rewards_coefficient = {value} is not a number of at least 0")
