"""A model that has learned one conversation with a calculator calls it, reads the result and is rewarded."""

import json

import pytest
import torch
import torch.nn.functional as F

from shoestring.engine.conversation.tool_use import tool_use
from shoestring.engine.engine import Engine
from shoestring.engine.llm import LLM
from shoestring.evals.passk import TaskEvalConfig, choose_problems, evaluate_task
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.rl import grpo as training
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.tasks.load import load_task
from shoestring.tokenizer.chat.template import encode_chat
from shoestring.tokenizer.questions import PromptStyle

TASK = """
from shoestring.tasks.task import Example, Task

class Product(Task):
    tools = ["calculator"]
    max_turns = 3

    def examples(self, split, seed):
        yield Example(question="12*12=?", answer=144)

    def reward(self, example, text):
        return float(text.endswith("It is 144."))
"""
PLAIN = PromptStyle(thinking=False)
CALL = {"name": "calculator", "arguments": '{"expression": "12*12"}'}
TURNS = [
    {"role": "user", "content": "12*12=?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
    {"role": "tool", "content": "144"},
    {"role": "assistant", "content": "It is 144."},
]


@pytest.fixture(scope="module")
def pupil(model_folder, tmp_path_factory):
    """The folder of the model and the task."""
    root = tmp_path_factory.mktemp("pupil")
    (root / "product.py").write_text(TASK)
    texts = (json.dumps(TURNS), "12*12=? It is 144.") * 2
    folder = model_folder(3, texts=texts, max_position_embeddings=1024)
    checkpoint = Checkpoint.open(folder)
    tokenizer, template = checkpoint.tokenizer, checkpoint.template
    task = load_task(str(root / "product.py"))
    use = tool_use("product", task, tokenizer, template, thinking=False)
    chat = encode_chat(TURNS, tokenizer, template, tools=use.definitions)
    ids, mask = torch.tensor(chat.ids), torch.tensor(chat.loss_mask)[1:]
    model = load_model(checkpoint, dtype=torch.float32).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        hidden = model.features(ids[None, :-1]).hidden_BTD[0][mask]
        loss = F.cross_entropy(hidden @ model.head_weight_WD.T, ids[1:][mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    save_model(model, root / "model", tokenizer_files=folder, name="pupil")
    return root


def test_it_is_rewarded_for_what_the_calculator_said(pupil, runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    config = GRPOConfig(
        model=str(pupil / "model"), tasks=(TaskShare(name=str(pupil / "product.py")),), steps=2,
        num_prompts=2, num_generations=4, max_tokens=300, prompt=PLAIN, optim=PolicyOptim(lr=1e-5),
    )  # fmt: skip
    training.grpo(config, runtime, tmp_path / "run", quiet=True)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["accuracy"] > 0.5
    assert first["tool_calls"] > 0.5
    assert first["gap"] < 1e-4
    samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert any(json.loads(line)["parts"]["accuracy"] == 1.0 for line in samples)


def test_its_score_is_that_of_conversations(pupil):
    checkpoint = Checkpoint.open(pupil / "model")
    llm = LLM.of(Engine(load_model(checkpoint), checkpoint.tokenizer), checkpoint)
    task = load_task(str(pupil / "product.py"))
    config = TaskEvalConfig(
        samples=2, k=(1,), max_tokens=300, greedy=True, prompt=PromptStyle(thinking=False)
    )
    score = evaluate_task(llm, task, choose_problems(task, config), config, template=llm.template)
    assert score.greedy == 1.0
