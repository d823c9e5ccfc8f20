"""A plan beside what the run took: FLOPs, memory and seconds, as planned from its recipe and as measured."""

from typing import Any

from shoestring import config as configs
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.receipts.read import StageReceipt, is_pretraining, recipe_table
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.runs.plan import LOCAL_SHARE, pretraining_plan


def planned_and_measured(receipt: StageReceipt) -> dict[str, dict[str, Any]]:
    """Each figure as planned, as measured, and its difference; nothing for recipes that have no plan."""
    folder, content = receipt.folder, receipt.content
    if not (folder / "config.toml").is_file() or not is_pretraining(recipe_table(folder)):
        return {}
    if not (folder / "model" / "config.json").is_file():
        return {}
    plan = pretraining_plan(
        configs.load(PretrainConfig, folder / "config.toml"), Checkpoint.open(folder / "model").config
    )
    machine = content.get("machine", {})
    peak = machine.get("measured_peak_flops_per_s")
    flops = sum(plan.flops.values())
    rows = [("train_flops", flops, content["train_flops"], "from the recipe, step by step")]
    rows.append(("memory_bytes", plan.memory.total, machine.get("peak_memory_bytes"), "cost/memory.py"))
    if isinstance(peak, int | float):
        assumption = f"{LOCAL_SHARE:.0%} of the {peak / 1e9:.0f} GFLOP/s that the run measured"
        rows.append(("seconds", flops / (LOCAL_SHARE * peak), content.get("seconds"), assumption))
    return {
        name: {
            "planned": plan_value,
            "measured": value,
            "difference": value / plan_value - 1,
            "assumption": assumption,
        }
        for name, plan_value, value, assumption in rows
        if isinstance(value, int | float) and plan_value
    }
