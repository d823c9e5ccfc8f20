"""The recipe's names are TRL's; the others stand in a table with their reason."""

import re
from dataclasses import fields

from shoestring.preferences import recipe
from shoestring.preferences.losses import PreferenceLossConfig

# Fields of TRL's DPOConfig, KTOConfig, CPOConfig, ORPOConfig and RewardConfig with the same meaning here.
SAME = {
    "beta", "label_smoothing", "simpo_gamma", "desirable_weight", "undesirable_weight",
    "center_rewards_coefficient", "seed", "gradient_checkpointing", "warmup_ratio", "report_to",
}  # fmt: skip
TABLES = {"loss", "lora"}
"""Fields that are tables themselves; their fields are listed."""


def test_every_setting_is_trls_or_in_the_table():
    classes = (recipe.PreferenceConfig, recipe.RewardModelConfig, PreferenceLossConfig)
    names = {field.name for cls in classes for field in fields(cls)}
    rows = re.findall(r"^\| (.+?) \|", recipe.__doc__, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"\w+", row)}
    assert names - SAME - TABLES <= listed
