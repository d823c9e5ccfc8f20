"""SFTConfig: all settings that change the result of fine-tuning on conversations.

Names and meanings are those of transformers, TRL and PEFT. What differs, and why:

| Name | There | Reason |
|---|---|---|
| model, data, tokenizer, template | arguments of the trainer | a recipe is the whole run |
| note, tags | run_name | a text and words for whoever looks at runs later |
| data, heldout, columns | train_dataset, eval_dataset | a mixture of tables with path, weight and columns |
| learn | assistant_only_loss | "all" is pretraining on conversations, "last" the last turn alone |
| thinking | not there | a template may never write reasoning_content |
| overlong, bad_rows | truncation, none | one policy each, and counts of what is left out |
| epochs, total_tokens | num_train_epochs, max_steps | a budget of tokens, as in pretraining |
| seq_len | max_length | pretraining's name |
| batch_tokens, micro_tokens | per_device_train_batch_size | conversations differ in length |
| eval_every, save_every | eval_steps, save_steps | the same words in every recipe |
| heldout_fraction | eval_dataset | a share of the same conversations |
| early_stopping_patience | EarlyStoppingCallback | a field, and the best step's model is the result |
| balance_alpha | router_aux_loss_coef | DeepSeek-V3's alpha |
| optim, schedule | learning_rate, adam_beta1, lr_scheduler_type | PyTorch's names, in tables of their own |
| lora.rank, alpha, targets | r, lora_alpha, target_modules | targets also name kinds of layers |
| precision | bf16, fp16 | one word for the products; FP8 and FP4 are simulated |
| watts, price | not there | for the receipt |
"""

import math
from dataclasses import dataclass, field, replace

from shoestring.data.chat.recipe import ConversationConfig
from shoestring.errors import ConfigError
from shoestring.model.lora import LoraConfig
from shoestring.train.optim import OptimConfig
from shoestring.train.report.receipt import Price
from shoestring.train.runs.recipe import Precision, RunConfig, check_precision
from shoestring.train.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class SFTOptim(OptimConfig):
    """OptimConfig with lower rates, for weights that are trained already."""

    lr: float = 0.0
    """0: R1-Distill-Qwen-1.5B's 1e-4 (arXiv 2501.12948, Table 6), and ten times that for LoRA, whose matrices
    are small. Larger students take less."""
    muon_lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super(SFTOptim, self if self.lr else replace(self, lr=1.0)).__post_init__()


@dataclass(frozen=True, kw_only=True)
class SFTSchedule(ScheduleConfig):
    """One cosine to a tenth (R1's SFT, arXiv 2501.12948, section 2.3), with the balance bias held still."""

    warmup_ratio: float = 0.03
    constant_until: float = 0.03
    cosine_until: float = 1.0
    tail_from: float = 1.0
    tail: float = 0.1
    batch_start: float = 1.0
    batch_ramp_until: float = 0.0
    bias_speed: float = 0.0
    mtp_weight: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SFTConfig(ConversationConfig, RunConfig):
    """Supervised fine-tuning of a model on conversations."""

    model: str
    """A model: a folder or a hub name (org/name). A preset's name starts from random weights."""
    epochs: float = 2.0
    """Passes over the conversations (DeepSeek-V3 and R1: 2)."""
    total_tokens: int = 0
    """Token budget in place of `epochs`; 0: none."""
    batch_tokens: int = 0
    """Tokens in a step, about: whole conversations, padding not counted. 0: such that an epoch has 32 steps,
    or more where steps would be over 16,384."""
    micro_tokens: int = 0
    """Tokens in one forward pass, padding included: bounds memory, not the result. 0: what the machine's
    memory has room for (train/memory.py)."""
    early_stopping_patience: int = 0
    """Evaluations in a row without a better held-out score before the run ends; 0: any number."""
    eval_every: int = 50
    """Steps between evaluations; there is one at the end too."""
    save_every: int = 200
    """Steps between checkpoints; Ctrl-C saves one too."""
    balance_alpha: float = 1e-4
    """Weight of the sequence balance loss (DeepSeek-V3: 1e-4)."""
    precision: Precision = "auto"
    """Of matrix products. "auto": float32 on a CPU, bfloat16 on a GPU. "bf16": bfloat16 on a CPU too,
    and in Muon's iteration, faster where it has AMX; weights, sums, attention and router stay float32.
    "fp8": V3's FP8 training in simulation, which is slower; "fp4": the same, with routed experts' weights
    in 4 bits (V4)."""
    watts: float | None = None
    """Power of the machine for the receipt, where it cannot be measured."""
    optim: SFTOptim = field(default_factory=SFTOptim)
    schedule: SFTSchedule = field(default_factory=SFTSchedule)
    lora: LoraConfig = field(default_factory=LoraConfig)
    """With a rank over 0 only adapters are trained."""
    price: Price = field(default_factory=Price)

    CAN_CHANGE = RunConfig.CAN_CHANGE | {
        *("epochs", "total_tokens", "micro_tokens", "eval_every", "save_every", "watts", "price"),
        "early_stopping_patience",
    }

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        ConversationConfig.__post_init__(self)
        if not self.optim.lr:
            lr = 1e-3 if self.lora.rank else 1e-4
            object.__setattr__(self, "optim", replace(self.optim, lr=lr))
        for name in ("eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("total_tokens", "batch_tokens", "micro_tokens", "early_stopping_patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 0")
        if self.early_stopping_patience and not (self.heldout or self.heldout_fraction):
            raise ConfigError(
                "early_stopping_patience needs held-out conversations; --set heldout_fraction=0.1, or --set "
                "'heldout=[\"FILE.jsonl\"]'"
            )
        if not 0.0 < self.epochs < math.inf:
            raise ConfigError(f"epochs = {self.epochs} is not a number over 0")
        if not 0.0 <= self.balance_alpha < math.inf:
            raise ConfigError(f"balance_alpha = {self.balance_alpha} is not a number of at least 0")
        check_precision(self.precision)
        if self.watts is not None and not 0.0 < self.watts < math.inf:
            raise ConfigError(f"watts = {self.watts} is not a number over 0; leave it out if unknown")
        if self.lora.rank and self.schedule.bias_speed:
            raise ConfigError("schedule.bias_speed moves the base's balance bias; LoRA needs it at 0")
