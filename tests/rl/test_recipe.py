"""The recipe's names are TRL's; the others stand in a table with their reason."""

import re
from dataclasses import fields

from shoestring.rl import recipe
from shoestring.rl.losses import PolicyLossConfig
from shoestring.train import sft_recipe

# Fields of TRL's GRPOConfig and SFTConfig with the same meaning here.
SAME = {
    "num_generations", "steps_per_generation", "temperature", "seed", "warmup_steps", "ref_model_sync_steps",
    "beta", "epsilon_high", "loss_type", "mask_truncated_completions", "use_bias_correction_kl",
    "off_policy_mask_threshold", "max_grad_norm", "weight_decay", "warmup_ratio",
    "gradient_checkpointing", "report_to",
}  # fmt: skip
TABLES = {"loss", "lora"}
"""Fields that are tables themselves; their fields are listed."""


def listed(module) -> set[str]:
    """Names in the first column of a module's table."""
    rows = re.findall(r"^\| (.+?) \|", module.__doc__, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"\w+", row)}


def test_every_setting_of_reinforcement_is_trls_or_in_the_table():
    names = {field.name for cls in (recipe.GRPOConfig, PolicyLossConfig) for field in fields(cls)}
    assert names - SAME - TABLES <= listed(recipe)


def test_every_setting_of_fine_tuning_is_known_or_in_the_table():
    names = {field.name for field in fields(sft_recipe.SFTConfig)}
    assert names - SAME - TABLES <= listed(sft_recipe)


def test_no_name_of_trl_stands_for_something_else():
    theirs = {
        "max_steps",
        "num_iterations",
        "generation_batch_size",
        "max_completion_length",
        "epsilon",
        "delta",
    }
    theirs |= {
        "scale_rewards",
        "top_entropy_quantile",
        "reward_weights",
        "sync_ref_model",
        "num_train_epochs",
    }
    for cls in (recipe.GRPOConfig, PolicyLossConfig, sft_recipe.SFTConfig):
        assert not theirs & {field.name for field in fields(cls)}
