"""The last step of a run once more: its loss has to come out again, to the bit on a processor of its kind."""

import shutil
import tempfile
from pathlib import Path

from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.receipts.read import StageReceipt, is_pretraining, recipe_table
from shoestring.receipts.verify import Check
from shoestring.train import checkpoint
from shoestring.train.pretrain import pretrain
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report.metrics import read
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig

ROUNDING = 1e-5
"""Relative difference of a loss on another kind of processor."""


def rerun(receipt: StageReceipt, runtime: Runtime) -> Check:
    """Train from the newest checkpoint before the last step to it, in a folder that is thrown away."""
    folder = receipt.folder
    recipe = recipe_table(folder)
    is_corpus = is_pretraining(recipe)
    if not is_corpus and not ("data" in recipe and "epochs" in recipe and "learn" in recipe):
        detail = "only pretraining and fine-tuning can be run once more from their folder"
        return Check(name="last loss", is_right=None, detail=detail)
    rows = read(folder / "metrics.jsonl")
    last = rows[-1]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / folder.resolve().name
        start = _copy(folder, out, int(last["step"]))
        if is_corpus:
            pretrain(configs.load(PretrainConfig, out / "config.toml"), runtime, out, resume=True, quiet=True)
        else:
            sft(configs.load(SFTConfig, out / "config.toml"), runtime, out, resume=True, quiet=True)
        now = read(out / "metrics.jsonl")[-1]
    what = f"step {last['step']} from step {start}: loss {now['loss']!r}, in the log {last['loss']!r}"
    difference = abs(now["loss"] - last["loss"]) / max(abs(last["loss"]), 1e-12)
    if now["step"] != last["step"] or difference > ROUNDING:
        return Check(name="last loss", is_right=False, detail=what)
    same = "the same to the bit" if now["loss"] == last["loss"] else "the same but for rounding"
    return Check(name="last loss", is_right=True, detail=f"{what}: {same}")


def _copy(folder: Path, out: Path, last_step: int) -> int:
    """Copy what a resume needs, with the newest checkpoint before the last step; returns its step."""
    out.mkdir(parents=True)
    for name in ("config.toml", "data.json", "metrics.jsonl"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    if (folder / "tokenizer").is_dir():
        shutil.copytree(folder / "tokenizer", out / "tokenizer")
    paths = sorted((folder / "checkpoints").glob("step-*"), key=checkpoint.step_of)
    before = [path for path in paths if checkpoint.step_of(path) < last_step]
    if not before:
        (out / "metrics.jsonl").unlink(missing_ok=True)
        return 0
    shutil.copytree(before[-1], out / "checkpoints" / before[-1].name)
    return checkpoint.step_of(before[-1])
