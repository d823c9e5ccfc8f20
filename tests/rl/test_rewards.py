"""Rewards of the answers that a policy sampled: their parts, and a judge's among them."""

import hashlib
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.errors import ConfigError, Stopped
from shoestring.remote.config import RemoteConfig
from shoestring.rl import grpo as training
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, RewardConfig, TaskShare
from shoestring.rl.rewards import part_names, reward_parts, with_preferences
from shoestring.tasks.custom.judge import JudgeConfig
from shoestring.tasks.task import Example, Problem
from shoestring.tasks.verify import Verdict
from shoestring.tokenizer.questions import PromptStyle
from shoestring.train.runs.recipe import resumed


def verdict(reward, fault=None) -> Verdict:
    return Verdict(ticket=None, reward=reward, fault=fault)


def test_a_reward_has_the_parts_that_the_recipe_names():
    text = "<think>two and two</think>4"
    own = {"accuracy": verdict(1.0)}
    assert reward_parts(own, text, RewardConfig()) == {"accuracy": 1.0}
    both = RewardConfig(format=0.5, language="en", language_weight=0.2)
    parts = reward_parts({"accuracy": verdict(0.0)}, text, both)
    assert parts == {"accuracy": 0.0, "format": 0.5, "language": 0.2}
    assert part_names(both) == list(parts)


def test_a_fault_of_any_verifier_leaves_no_reward_and_what_does_not_apply_is_left_out():
    config = RewardConfig(functions=("r.py",), format=0.5)
    verdicts = {"accuracy": verdict(1.0), "functions": verdict(None)}
    assert reward_parts(verdicts, "4", config) == {"accuracy": 1.0, "format": 0.0}
    assert reward_parts(verdicts | {"functions": verdict(None, "timeout")}, "4", config) == {}
    nothing = {"accuracy": verdict(None), "functions": verdict(None)}
    assert reward_parts(nothing, "<think>a</think>b", config) == {}
    assert part_names(config) == ["accuracy", "format", "functions"]


class Scorer:
    """A reward model whose score is the number of words of the last reply, less three."""

    def __init__(self):
        self.talks = []

    def score(self, talks):
        self.talks += talks
        return [len(talk[-1]["content"].split()) - 3.0 for talk in talks]


def problem(task: str, messages=()) -> Problem:
    return Problem(task=task, example=Example(key="k", question="hi", messages=messages))


ANSWERS = [
    (problem("sums"), "<think>a long thought here</think>4", {"accuracy": 1.0}),
    (problem("talk"), "<think>hm hm hm</think>good day to you", {"accuracy": 0.0, "format": 0.1}),
    (problem("talk", [{"role": "user", "content": "a"}]), "no", {}),
]


def test_a_preference_is_added_to_the_program_s_reward():
    scorer = Scorer()
    config = RewardConfig(model="m", model_weight=0.5)
    rewards = with_preferences(ANSWERS, scorer, config)
    assert [talk[-1]["content"] for talk in scorer.talks] == ["4", "good day to you", "no"]  # no thinking
    assert scorer.talks[2][0] == {"role": "user", "content": "a"}
    half = [0.5 / (1 + math.exp(-score)) for score in (-2.0, 1.0, -2.0)]
    assert rewards[0] == {"accuracy": 1.0, "preference": pytest.approx(half[0])}
    assert rewards[1] == {"accuracy": 0.0, "format": 0.1, "preference": pytest.approx(half[1])}
    assert rewards[2] == {"preference": pytest.approx(half[2])}
    assert part_names(config) == ["accuracy", "preference"]


def test_in_tasks_of_its_own_it_takes_the_place_of_the_program():
    scorer = Scorer()
    config = RewardConfig(model="m", model_tasks=("talk",), format=0.1)
    rewards = with_preferences(ANSWERS, scorer, config)
    assert len(scorer.talks) == 2
    assert rewards[0] == ANSWERS[0][2]
    assert rewards[1] == {"format": 0.1, "preference": pytest.approx(1 / (1 + math.exp(-1.0)))}
    assert rewards[2].keys() == {"format", "preference"}


@pytest.mark.parametrize("score", [1e6, -1e6])
def test_extreme_scores_stay_chances(score):
    scorer = Scorer()
    scorer.score = lambda talks: [score for _ in talks]
    ((_, reward),) = [with_preferences(ANSWERS[:1], scorer, RewardConfig(model="m"))[0].items()]
    assert reward[1] in (0.0, 1.0) or reward[1] < 1e-300


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_tasks": ("talk",)}, "needs a reward model"),
        ({"model": "m", "model_weight": 0.0}, "model_weight"),
        ({"model": "m", "model_steps": -1}, "model_steps"),
        ({"model": "m", "model_tasks": ("other",)}, "names 'other'; the tasks are countdown"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        GRPOConfig(model="a", tasks=(TaskShare(name="countdown"),), reward=RewardConfig(**settings))


class Server(ThreadingHTTPServer):
    """A judge whose score is a digest of the answer."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.num_requests = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.num_requests += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        score = int(hashlib.sha256(json.loads(body)["messages"][1]["content"].encode()).hexdigest(), 16) % 11
        message = {"role": "assistant", "content": json.dumps({"reason": "so", "score": score})}
        data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def recipe(server, student_folder, tmp_path):
    """A run whose answers a judge rewards besides the task."""

    def make(max_requests=0) -> GRPOConfig:
        judge = JudgeConfig(
            url=f"http://127.0.0.1:{server.server_address[1]}/v1",
            rubric="Is it good?",
            remote=RemoteConfig(model="m", attempts=1),
            weight=0.5,
            cache=str(tmp_path / "verdicts.jsonl"),
            max_requests=max_requests,
        )
        return GRPOConfig(
            model=str(student_folder),
            tasks=(TaskShare(name="arithmetic"),),
            reward=RewardConfig(judge=judge),
            prompt=PromptStyle(thinking=False),
            steps=4, num_prompts=2, num_generations=3, max_tokens=6, save_every=2, eval_every=4,
            min_lr_ratio=1.0, optim=PolicyOptim(lr=3e-3),
        )  # fmt: skip

    return make


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_judge_rewards_a_run_that_a_budget_stops_and_that_resumes_to_the_same_bits(
    recipe, server, runtime, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    training.grpo(recipe(), runtime, tmp_path / "whole", quiet=True)
    num_requests = server.num_requests
    assert 0 < num_requests <= 24
    logged = rows(tmp_path / "whole")
    assert all(0 <= row["judge"] <= 0.5 for row in logged)
    assert all(row["reward"] == pytest.approx(row["accuracy"] + row["judge"]) for row in logged)
    assert any(row["grad_norm"] > 0 for row in logged)
    training.grpo(recipe(), runtime, tmp_path / "again", quiet=True)
    assert server.num_requests == num_requests  # every verdict was in the cache
    (tmp_path / "verdicts.jsonl").unlink()
    words = (
        r"judge's budget of 15 requests is used up .*--set reward.judge.max_requests=.*; stopped at step 2"
    )
    with pytest.raises(Stopped, match=words):
        training.grpo(recipe(15), runtime, tmp_path / "parts", quiet=True)
    config = configs.load(GRPOConfig, tmp_path / "parts" / "config.toml")
    assert config.reward == recipe(15).reward
    training.grpo(
        resumed(GRPOConfig, tmp_path / "parts" / "config.toml", ["reward.judge.max_requests=100"]),
        runtime, tmp_path / "parts", resume=True, quiet=True,
    )  # fmt: skip
    whole, parts = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "parts"))
    assert all((whole[name] == tensor).all() for name, tensor in parts.items())
    assert [row["judge"] for row in rows(tmp_path / "parts")] == [row["judge"] for row in logged]
