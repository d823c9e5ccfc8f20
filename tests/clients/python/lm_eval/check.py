"""lm-evaluation-harness against the server whose root URL is the argument, with tasks of our own."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = sys.argv[1]


def evaluate(model: str, task: str, **arguments: object) -> dict[str, float]:
    """The scores of a task."""
    out = HERE / "results" / task
    arguments = {"model": "mini", "num_concurrent": 2, "max_retries": 1, **arguments}
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "--model",
        model,
        "--tasks",
        task,
        "--include_path",
        str(HERE),
    ]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())]
    command += ["--output_path", str(out), "--batch_size", "1"]
    if model == "local-chat-completions":
        command.append("--apply_chat_template")
    environment = {**os.environ, "OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    subprocess.run(command, check=True, cwd=HERE, env=environment)
    (result,) = out.rglob("results_*.json")
    scores: dict[str, float] = json.loads(result.read_text())["results"][task]
    return scores


chat = evaluate("local-chat-completions", "shoestring_sums", base_url=f"{ROOT}/v1/chat/completions")
assert 0 <= chat["exact_match,none"] <= 1
text = evaluate(
    "local-completions",
    "shoestring_choices",
    base_url=f"{ROOT}/v1/completions",
    tokenizer_backend="huggingface",
    tokenizer=sys.argv[2],
)
assert 0 <= text["acc,none"] <= 1
print(f"chat {chat['exact_match,none']}, choices {text['acc,none']}: passed")
