"""PretrainConfig: all settings that change the result of a pretraining run."""

import math
from dataclasses import dataclass, field

from shoestring.data.corpus import DataConfig
from shoestring.errors import ConfigError
from shoestring.train.optim import OptimConfig
from shoestring.train.report.receipt import Price
from shoestring.train.runs.recipe import Precision, RunConfig, check_precision
from shoestring.train.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """A pretraining run from random weights."""

    model: str = "demo"
    """A preset's name (`shoestring show`), or a folder with a config.json."""
    total_tokens: int = 2_000_000
    """The token budget; every phase of the schedule is a fraction of it."""
    seq_len: int = 512
    """Tokens in a row."""
    batch_size: int = 8
    """Rows in a step, once the batch ramp is over."""
    micro_batch_size: int = 8
    """Rows in one forward pass: bounds memory, not the result."""
    tokenizer: str = ""
    """A folder with tokenizer.json; empty trains one on the corpus, as large as the model's vocabulary."""
    balance_alpha: float = 1e-4
    """Weight of the sequence balance loss (DeepSeek-V3: 1e-4)."""
    eval_every: int = 100
    """Steps between held-out evaluations."""
    eval_tokens: int = 65_536
    """Held-out tokens per evaluation."""
    save_every: int = 200
    """Steps between checkpoints; Ctrl-C saves one too."""
    precision: Precision = "auto"
    """Of matrix products. "auto": float32 on a CPU, bfloat16 on a GPU. "bf16": bfloat16 on a CPU too,
    and in Muon's iteration, faster where it has AMX; weights, sums, attention and router stay float32.
    "fp8": V3's FP8 training in simulation, which is slower; "fp4": the same, with routed experts' weights
    in 4 bits (V4)."""
    watts: float | None = None
    """Power of the machine for the receipt, where it cannot be measured."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    price: Price = field(default_factory=Price)

    CAN_CHANGE = RunConfig.CAN_CHANGE | {
        *("total_tokens", "micro_batch_size", "eval_every", "eval_tokens", "save_every", "watts", "price")
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("total_tokens", "seq_len", "batch_size", "micro_batch_size")
        for name in (*counts, "eval_every", "eval_tokens", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.balance_alpha < math.inf:
            raise ConfigError(f"balance_alpha = {self.balance_alpha} is not a number of at least 0")
        check_precision(self.precision)
        if self.watts is not None and not 0.0 < self.watts < math.inf:
            raise ConfigError(f"watts = {self.watts} is not a number over 0; leave it out if unknown")
