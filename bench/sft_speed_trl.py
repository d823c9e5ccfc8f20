"""Part of sft_speed.py for TRL: runs its SFTTrainer with PEFT on a job and prints one line of JSON.

    PYTHONPATH=. python bench/sft_speed_trl.py JOB.json      with a Python interpreter that has trl and peft

All that costs time and is not compared is off: checkpoints, gradient checkpointing, reports, dropout, mixed
precision.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path


def settings(job):
    from trl import SFTConfig

    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=job["rows"],
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=job["beta2"],
        weight_decay=0.0,
        max_grad_norm=1e9,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",
        max_length=None,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def build(job, clock):
    """Trainer whose callback notes the end of each step and its loss."""
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    class StepEnds(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            clock["begins"].append(time.perf_counter())

        def on_step_end(self, args, state, control, **_):
            clock["ends"].append(time.perf_counter())

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                clock["losses"].append(float(logs["loss"]))

    torch.set_num_threads(job["threads"])
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, job["adapter"], is_trainable=True)
    rows = [
        {"input_ids": ids, "labels": [i if m else -100 for i, m in zip(ids, mask, strict=True)]}
        for ids, mask in job["data"]
    ]
    return SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        args=settings(job),
        train_dataset=Dataset.from_list(rows),
        callbacks=[StepEnds()],
    )


def main():
    from sft_speed import peak_bytes

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="file that sft_speed.py writes")
    job = json.loads(parser.parse_args().job.read_text())
    clock = {"begins": [], "ends": [], "losses": []}
    build(job, clock).train()
    seconds = [end - begin for begin, end in zip(clock["begins"], clock["ends"], strict=True)]
    print(json.dumps({"losses": clock["losses"], "seconds": seconds, "bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
