"""Conversations with tools: only the policy's own tokens are learned, each as it was sampled."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from shoestring.data.packing import IGNORE_INDEX
from shoestring.engine.conversation import tool_use as tools
from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError, Stopped
from shoestring.rl import grpo as training
from shoestring.rl import rollout
from shoestring.rl.losses import Denominators, policy_loss
from shoestring.rl.micro_batches import answer_logprobs, micro_batches
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.rl.rollout import roll_out
from shoestring.rl.run import build
from shoestring.rl.step import with_advantages
from shoestring.tasks.verify import Verifier
from shoestring.train.parallel import Ranks
from shoestring.train.stop import StopRequest

TASK = """
from shoestring.tasks.task import Example, Task

def digits(text: str) -> str:
    "Count."
    return RESULT

class Sums(Task):
    tools = ["calculator", digits]
    max_turns = 3

    def examples(self, split, seed):
        for n in range(50):
            yield Example(question=f"{n}+1=?", answer=n + 1)

    def reward(self, example, text):
        return len(text) % 5 / 5
"""


@pytest.fixture(scope="module")
def student(model_folder):
    return model_folder(2, max_position_embeddings=2048)


@pytest.fixture
def config(tmp_path, student, monkeypatch):
    """A run in which a random model calls a tool at the end of each of its turns, which end soon."""

    def make(result="str(len(text))", call="digits", **changes) -> GRPOConfig:
        file = tmp_path / f"sums{abs(hash(result))}.py"
        file.write_text(TASK.replace("RESULT", result))
        settings = {
            "model": str(student),
            "tasks": (TaskShare(name=str(file)),),
            "steps": 4, "num_prompts": 2, "num_generations": 3, "max_tokens": 120, "save_every": 2,
            "eval_every": 2, "min_lr_ratio": 1.0, "optim": PolicyOptim(lr=3e-3),
        }  # fmt: skip
        monkeypatch.setattr(tools.ToolUse, "read", reader(call))
        return GRPOConfig(**settings | changes)

    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(rollout, "SamplingParams", ending_soon)
    return make


def ending_soon(**fields) -> SamplingParams:
    """A turn ends at the first token of every fourth id."""
    return SamplingParams(**fields, stop_token_ids=list(range(60, 316, 4)))


def reader(name):
    """A reader of turns that finds a call of `name` in each that ended."""

    def read(self, prompt_ids, completion):
        message = {"role": "assistant", "content": completion.text}
        if completion.finish_reason == "stop":
            arguments = json.dumps({"text": completion.text})
            call = {"type": "function", "function": {"name": name, "arguments": arguments}}
            message["tool_calls"] = [call]
        return message

    return read


@pytest.fixture
def sample(runtime, tmp_path):
    """The run of a recipe at its start, and a step's groups of answers."""

    def make(config):
        run = build(config, runtime, tmp_path / "built", Ranks(runtime), resume=False)
        with Verifier(run.problems.tasks) as verifier:
            problems = run.problems.draw_prompted(config.num_prompts, run.prompts, run.tools)
            return run, roll_out(run.engine, problems, config, verifier, first=0)

    return make


def test_turns_alternate_with_results_and_no_token_is_encoded_again(config, sample):
    run, groups = sample(config())
    answers = [answer for group in groups for answer in group]
    assert [len(group) for group in groups] == [3, 3]
    assert max(answer.num_calls for answer in answers) == 2  # the calls of the third turn get no result
    assert all(answer.num_errors == 0 for answer in answers)
    use = next(iter(run.tools.values()))
    for answer in answers:
        assert len(answer.token_ids) == len(answer.logprobs) == len(answer.is_own) <= 120
        roles = [message["role"] for message in answer.messages]
        assert roles == ["assistant", "tool"] * answer.num_calls + ["assistant"]
        results = [message for message in answer.messages if message["role"] == "tool"]
        pieces = [use.result_ids([result]) for result in results]
        foreign = [i for i, own in zip(answer.token_ids, answer.is_own, strict=True) if not own]
        assert foreign == [i for ids in pieces for i in ids]
        assert all((logp == 0) == (not own) for logp, own in zip(answer.logprobs, answer.is_own, strict=True))
        assert answer.text.startswith("<think>")
    tools_prompt = run.tokenizer.decode(answers[0].prompt_ids)
    assert '"name": "calculator"' in tools_prompt
    assert '"name": "digits"' in tools_prompt


def test_the_trainer_and_the_engine_agree_on_every_token_of_the_policy(config, sample):
    run, groups = sample(config())
    answers = [replace(answer, advantage=1.0) for group in groups for answer in group]
    for batch in micro_batches(answers, run.config, run.model):
        own_BT = batch.targets_BT != IGNORE_INDEX
        assert int(own_BT.sum()) < batch.num_tokens
        logp_BT = answer_logprobs(run.model, batch, 1.0, run.vocabulary).detach()
        assert float((logp_BT - batch.engine_logp_BT)[own_BT].abs().max()) < 1e-4
        assert not logp_BT[~own_BT].any()
        assert torch.equal(batch.mask_BT, own_BT)


def test_the_gradient_is_that_of_the_own_tokens_and_of_nothing_else(config, sample):
    """The loss written out: minus advantage times log-probability, summed over the policy's own tokens."""
    run, groups = sample(config())
    config = run.config
    group = with_advantages(groups, config.advantage)[0]
    assert any(answer.advantage for answer in group)
    [batch] = micro_batches(group, config, run.model)
    whole = Denominators(sequences=len(group), tokens=1, max_tokens=config.max_tokens)
    logp_BT = answer_logprobs(run.model, batch, 1.0, run.vocabulary)
    loss = policy_loss(
        logp_BT, logp_BT.detach(), None, batch.advantages_B, batch.mask_BT, config.loss, denominators=whole
    ).loss
    ours = torch.autograd.grad(loss, list(run.model.parameters()), allow_unused=True)
    terms = []
    for answer in group:
        ids = torch.tensor((*answer.prompt_ids, *answer.token_ids))
        experts = None
        if answer.experts is not None:
            layers = run.model.config.moe_layers
            experts = {layer: answer.experts[:, place].long() for place, layer in enumerate(layers)}
        hidden = run.model.features(ids[None, :-1], experts=experts).hidden_BTD[0]
        rows = hidden @ run.vocabulary.rows(run.model.head_weight_WD).T
        logp = rows.float().log_softmax(-1)
        first = len(answer.prompt_ids)
        for place, own in enumerate(answer.is_own):
            if own:
                token = int(run.vocabulary.places(ids[first + place : first + place + 1])[0])
                terms.append(-answer.advantage * logp[first + place - 1, token])
    theirs = torch.autograd.grad(torch.stack(terms).sum(), list(run.model.parameters()), allow_unused=True)
    scale = scale_of(ours, theirs)
    for a, b in zip(ours, theirs, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b * scale, rtol=1e-3, atol=1e-6)


def scale_of(ours, theirs) -> float:
    """The one factor of normalization between two gradients."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None and b.abs().max() > 0]
    a, b = max(pairs, key=lambda pair: float(pair[1].abs().max()))
    place = int(b.abs().flatten().argmax())
    return float(a.flatten()[place] / b.flatten()[place])


def test_a_run_learns_counts_calls_and_resumes_to_the_same_bits(config, runtime, tmp_path, monkeypatch):
    recipe = config()
    training.grpo(recipe, runtime, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        asked = []
        stop = property(lambda self: asked.append(1) or len(asked) > 2, lambda self, _: None)
        patch.setattr(StopRequest, "is_requested", stop, raising=False)
        with pytest.raises(Stopped):
            training.grpo(recipe, runtime, tmp_path / "parts", quiet=True)
    training.grpo(recipe, runtime, tmp_path / "parts", resume=True, quiet=True)
    whole, parts = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], tensor) for name, tensor in parts.items())
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["tool_calls"] > 1 and row["tool_errors"] == 0 for row in rows)
    assert max(row["gap"] for row in rows) < 1e-4
    assert any(row["grad_norm"] > 0 for row in rows)


def test_calls_that_fail_are_results_and_counted(config, sample):
    _, groups = sample(config(call="no_such_tool"))
    answer = max((answer for group in groups for answer in group), key=lambda a: a.num_calls)
    assert answer.num_errors == answer.num_calls > 0
    assert "there is no tool 'no_such_tool'; there are calculator, digits" in answer.messages[1]["content"]


def test_a_result_without_room_ends_the_conversation(config, sample):
    _, groups = sample(config(result="text.join(['long'] * 500)", max_tokens=90))
    answers = [answer for group in groups for answer in group]
    assert all(answer.is_truncated for answer in answers if answer.num_calls)
    assert all(sum(answer.is_own) <= 90 for answer in answers)


def test_a_model_without_tool_calls_is_refused_at_the_start(config, runtime, tmp_path, student):
    import shutil

    plain = tmp_path / "plain"
    shutil.copytree(student, plain)
    (plain / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ConfigError, match="has tools, and this model's chat template has no calls"):
        training.grpo(config(model=str(plain)), runtime, tmp_path / "run", quiet=True)
