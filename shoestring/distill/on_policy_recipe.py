"""OnPolicyConfig: all settings that change the result of on-policy distillation."""

import math
from dataclasses import dataclass, field

from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError
from shoestring.model.lora import LoraConfig
from shoestring.tokenizer.overlong import Overlong
from shoestring.train.optim import OptimConfig
from shoestring.train.report.receipt import Price
from shoestring.train.runs.recipe import RunConfig


@dataclass(frozen=True, kw_only=True)
class OnPolicyOptim(OptimConfig):
    """OptimConfig for weights that are trained already."""

    lr: float = 2e-5
    muon_lr: float = 2e-4
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig(RunConfig):
    """Reverse KL on the student's own samples: DeepSeek-V4's distillation, GKD with lambda 1 and beta 1."""

    steps: int = 200
    num_prompts: int = 16
    """Problems in a step."""
    num_generations: int = 4
    """The student's answers to each problem."""
    max_tokens: int = 1024
    """Longest answer; those that reach it count like the others."""
    overlong: Overlong = "filter"
    """Problems whose prompts do not fit into the context: filter (leave out, count), truncate or error."""
    temperature: float = 1.0
    """Temperature of the samples; the KL is always computed at 1."""
    thinking: bool | None = None
    """Whether the chat template asks for thinking; None: its default."""
    warmup_steps: int = 10
    """Steps over which the learning rate rises; it then stays."""
    micro_tokens: int = 8192
    """Tokens in one forward pass, padding included: bounds memory, not the result."""
    rows: int = 512
    """Tokens whose logits are in memory at once: bounds memory, not the result."""
    save_every: int = 50
    watts: float | None = None
    """Power of the machine for the receipt, where it cannot be measured."""
    optim: OnPolicyOptim = field(default_factory=OnPolicyOptim)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """With a rank over 0 only adapters of the student are trained."""
    price: Price = field(default_factory=Price)

    CAN_CHANGE = RunConfig.CAN_CHANGE | {"steps", "micro_tokens", "rows", "save_every", "watts", "price"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "steps",
            "num_prompts",
            "num_generations",
            "max_tokens",
            "micro_tokens",
            "rows",
            "save_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        if self.warmup_steps < 0:
            raise ConfigError(f"warmup_steps = {self.warmup_steps} must be at least 0")
        if self.watts is not None and not 0.0 < self.watts < math.inf:
            raise ConfigError(f"watts = {self.watts} is not a number over 0; leave it out if unknown")
        SamplingParams(n=self.num_generations, temperature=self.temperature, max_tokens=self.max_tokens)
