"""The same runs here and by TRL's DPOTrainer, where it is installed: losses, margins and gradients."""

import json
import random
from dataclasses import replace

import pytest
import torch

from shoestring.model.config import GQAConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.transformer import Transformer, initialize
from shoestring.preferences.data import Batches
from shoestring.preferences.losses import PreferenceLossConfig
from shoestring.preferences.prefer import prefer
from shoestring.preferences.recipe import PreferenceConfig, PreferenceOptim
from shoestring.train.report import metrics

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("default")

SAME = {
    "loss": "loss",
    "rewards/chosen": "rewards/chosen",
    "rewards/margins": "rewards/margins",
    "rewards/accuracies": "rewards/accuracies",
    "logps/rejected": "logps/rejected",
    "grad_norm": "grad_norm",
}
STEPS, SIZE, LR = 10, 4, 1e-3


@pytest.fixture
def llama(base, tmp_path):
    """A Llama of random weights with the base's tokenizer and template."""
    shape = replace(
        Checkpoint.open(base).config,
        model_type="llama",
        attention=GQAConfig(num_key_value_heads=1, head_dim=16),
        moe=None,
        num_nextn_predict_layers=0,
        initializer_range=0.1,
        rope=replace(Checkpoint.open(base).config.rope, interleave=False),
    )
    model = initialize(Transformer(shape), torch.Generator().manual_seed(0))
    save_model(model, tmp_path / "llama", tokenizer_files=base)
    return tmp_path / "llama"


def rows() -> list[dict[str, str]]:
    rng = random.Random(0)
    return [
        {
            "prompt": f"{n} + {rng.randrange(9)}",
            "chosen": "so " * (n % 3) + f"{n}",
            "rejected": "no " * (1 + n % 4),
        }
        for n in range(STEPS * SIZE)
    ]


@pytest.mark.parametrize(("ours", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_a_run_is_trls_step_by_step(llama, runtime, tmp_path, ours, theirs):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    config = PreferenceConfig(
        model=str(llama),
        data=(str(tmp_path / "pairs.jsonl"),),
        epochs=1.0,
        batch_size=SIZE,
        warmup_ratio=0.0,
        min_lr_ratio=1.0,
        optim=PreferenceOptim(lr=LR),
        loss=PreferenceLossConfig(loss_type=ours),
    )
    prefer(config, runtime, tmp_path / "run", quiet=True)
    batches = Batches(range(STEPS * SIZE), SIZE, seed=config.seed)
    order = [unit for step in range(STEPS) for unit in batches.of_step(step)]
    trainer = trl.DPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32),
        args=arguments(tmp_path / "trl", theirs),
        train_dataset=datasets.Dataset.from_list([messages(rows()[unit]) for unit in order]),
        processing_class=transformers.AutoTokenizer.from_pretrained(llama),
    )
    trainer.train()
    expected = [line for line in trainer.state.log_history if "rewards/margins" in line]
    found = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert len(found) == len(expected) == STEPS
    for row, line in zip(found, expected, strict=True):
        for name, their_name in SAME.items():
            assert row[name] == pytest.approx(line[their_name], rel=1e-4, abs=1e-5), name


def messages(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A row as a conversation, so that TRL applies the chat template as we do."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": role, "content": row[name]}] for name, role in roles.items()}


def arguments(out, loss_type: str):
    return trl.DPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=SIZE,
        num_train_epochs=1,
        learning_rate=LR,
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.99,
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.1,
        loss_type=[loss_type],
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
