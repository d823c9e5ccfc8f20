"""Scores on tasks: sampled by the engine, verified, the same again, and independent of the batch."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from shoestring.engine.conversation.tool_use import ToolUse
from shoestring.engine.engine import Engine
from shoestring.engine.llm import LLM
from shoestring.engine.request import CompletionOutput, RequestOutput
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError, DataError
from shoestring.evals.passk import TaskEvalConfig, choose_problems, evaluate_task
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.transformer import Transformer, initialize
from shoestring.tasks.arithmetic import Arithmetic
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import ToolResult, Verifier
from shoestring.tokenizer.questions import PromptStyle

TASK = Arithmetic(steps=1, largest=9, limit=90)
CONFIG = TaskEvalConfig(
    problems=6, samples=4, k=(1, 4), temperature=1.0, top_p=1.0, max_tokens=12, greedy=True
)


@dataclass
class Parrot:
    """Answers problem i with these texts; notes what it was asked."""

    tokenizer: object
    replies: list[list[str]]
    failing: bool = False
    max_model_len: int = 128

    def get_tokenizer(self):
        return self.tokenizer

    def generate(self, prompts, sampling_params, use_tqdm):
        self.asked = list(zip(prompts, sampling_params, strict=True))
        reason = "error" if self.failing else "stop"
        return [
            RequestOutput(
                request_id=str(number),
                prompt=None,
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=tuple(
                    CompletionOutput(
                        index=i, text=text, token_ids=tuple(self.tokenizer.encode(text)), finish_reason=reason
                    )
                    for i, text in enumerate(self.replies[number])
                ),
                finished=True,
            )
            for number, prompt in enumerate(prompts)
        ]


def test_a_reward_model_chooses_among_the_answers(tokenizer, llm, tmp_path):
    """One that likes long answers: they are right in the first problem and wrong in the second."""

    class Longest:
        def score(self, talks):
            self.talks = list(talks)
            return [float(len(talk[-1]["content"])) for talk in self.talks]

    plain = PromptStyle(thinking=False)
    config = replace(CONFIG, problems=2, samples=2, k=(1, 2), greedy=False, prompt=plain)
    examples = choose_problems(TASK, config)
    right = [str(example.answer) for example in examples]
    replies = [["5000", f"<think>what</think>so it is {right[0]}"], [right[1], "some other thing 5000"]]
    scorer = Longest()
    path = tmp_path / "answers.jsonl"
    parrot = Parrot(tokenizer, replies)
    score = evaluate_task(
        parrot, TASK, examples, config, template=llm.template, transcripts=path, scorer=scorer
    )
    assert (score.pass_at_k[2], score.best_at_k) == (1.0, {2: 0.5})
    assert scorer.talks[1][-1]["content"] == f"so it is {right[0]}"  # without the thinking
    assert scorer.talks[1][0] == {"role": "user", "content": examples[0].question}
    assert score.to_json()["intervals"]["best_at_2"] == [0.0, 1.0]
    assert json.loads(path.read_text().splitlines()[0])["answers"][0]["preference"] == 4.0
    without = evaluate_task(parrot, TASK, examples, config, template=llm.template)
    assert "best_at_k" not in without.to_json()


def test_known_replies_get_the_score_they_deserve(tokenizer, llm, tmp_path):
    examples = choose_problems(TASK, CONFIG)[:2]
    right, wrong = ([str(e.answer) for e in examples], [str(e.answer + 1) for e in examples])
    parrot = Parrot(
        tokenizer,
        [
            [f"so</think>{right[0]}", f"hm</think>it is {right[0]}.", f"</think>{wrong[0]}", "so so"],
            [f"so</think>{wrong[1]}", f"</think>{wrong[1]}", f"</think>{right[1]}", "</think>"],
        ],
    )
    config = TaskEvalConfig(samples=4, k=(2, 4))
    file = tmp_path / "answers.jsonl"
    score = evaluate_task(parrot, TASK, examples, config, template=llm.template, transcripts=file)
    assert score.pass_at_1 == (2 / 4 + 1 / 4) / 2
    assert score.maj_at_k[4] == 1 / 2  # the first problem's votes agree although their words do not
    assert score.format_share == (3 / 4 + 3 / 4) / 2  # the forced tag is part of the turn
    assert score.mean_thinking_tokens > 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["key"] for line in lines] == [example.key for example in examples]
    assert [a["reward"] for a in lines[0]["answers"]] == [1.0, 1.0, 0.0, 0.0]
    assert lines[0]["answers"][3] | {"text": "<think>so so", "vote": None} == lines[0]["answers"][3]
    assert all(params.n == 4 for _, params in parrot.asked)
    assert len({params.seed for _, params in parrot.asked}) == 2


def test_the_figures_of_a_task_are_in_its_score(tokenizer, llm, tmp_path):
    row = {"prompt": "Be brief.", "instruction_id_list": ["punctuation:no_comma"] * 2, "kwargs": [{}, {}]}
    (tmp_path / "ifeval.jsonl").write_text(json.dumps(row) + "\n")
    task = load_task("ifeval", {"test_data": str(tmp_path / "ifeval.jsonl")})
    parrot = Parrot(tokenizer, [["a</think>yes", "a</think>well, yes", "a</think>well,\nyes", "a"]])
    config = TaskEvalConfig(samples=4, k=(1,))
    score = evaluate_task(parrot, task, choose_problems(task, config), config, template=llm.template)
    assert score.figures == {
        "prompt_strict": 1 / 4, "prompt_loose": 2 / 4, "instruction_strict": 1 / 4, "instruction_loose": 2 / 4
    }  # fmt: skip
    assert score.pass_at_1 == score.figures["prompt_strict"]


def test_a_failing_engine_is_no_score(tokenizer, llm):
    parrot = Parrot(tokenizer, [["4"] * 2], failing=True)
    example = choose_problems(TASK, CONFIG)[:1]
    with pytest.raises(DataError, match="2 of 2 answers to arithmetic got no verdict"):
        evaluate_task(parrot, TASK, example, TaskEvalConfig(k=()), template=llm.template)


def test_a_score_repeats_and_no_problem_changes_another(llm, model, tokenizer, folder, tmp_path):
    examples = choose_problems(TASK, CONFIG)
    assert len(examples) == 6

    def run(name, chosen, engine=llm):
        file = tmp_path / name
        score = evaluate_task(engine, TASK, chosen, CONFIG, template=llm.template, transcripts=file)
        return score, [json.loads(line) for line in file.read_text().splitlines()]

    score, answers = run("one", examples)
    fresh = LLM.of(Engine(model, tokenizer), Checkpoint.open(folder))
    again, _ = run("two", examples, fresh)
    assert again.to_json() == score.to_json()
    _, reversed_answers = run("three", examples[:1:-1])
    assert reversed_answers == answers[:1:-1]
    texts = [answer["text"] for answer in answers[0]["answers"]]
    assert len(set(texts)) == 4
    assert all(text.startswith("<think>") for text in texts)
    assert score.capped_share > 0
    assert answers[0]["greedy"]["tokens"] <= 12


def test_the_live_model_is_scored(llm, model):
    """After an update of shared weights, the same engine answers as the new model would."""
    examples = choose_problems(TASK, CONFIG)
    ask = {"template": llm.template}
    before = evaluate_task(llm, TASK, examples, CONFIG, **ask)
    with torch.no_grad():
        model.head_weight_WD.neg_()
    try:
        llm.engine.weights_changed()
        assert evaluate_task(llm, TASK, examples, CONFIG, **ask).to_json() != before.to_json()
    finally:
        with torch.no_grad():
            model.head_weight_WD.neg_()
        llm.engine.weights_changed()
    assert evaluate_task(llm, TASK, examples, CONFIG, **ask).to_json() == before.to_json()


def test_a_problem_that_does_not_fit_is_left_out_and_counted(llm, caplog):
    examples = choose_problems(TASK, CONFIG)
    long = replace(examples[0], key="long", question="7*8-" * 200 + examples[0].question)
    ask = {"template": llm.template}
    plain = evaluate_task(llm, TASK, examples, CONFIG, **ask)
    score = evaluate_task(llm, TASK, [examples[0], long, *examples[1:]], CONFIG, **ask)
    assert (score.overlong, score.problems) == (1, 6)
    assert replace(score, overlong=0) == plain
    assert (score.to_json()["overlong"], "overlong" in plain.to_json()) == (1, False)
    assert caplog.messages == []
    more = [replace(long, key=f"long {n}") for n in range(3)]
    evaluate_task(llm, TASK, [*more, *examples], CONFIG, **ask)
    assert "3 of 9 prompts (33%) do not fit" in caplog.text


def test_a_problem_that_does_not_fit_is_shortened_or_refused_where_that_is_said(llm):
    example = choose_problems(TASK, CONFIG)[0]
    long = replace(example, key="long", question="7*8-" * 200 + example.question)
    score = evaluate_task(llm, TASK, [long], replace(CONFIG, overlong="truncate"), template=llm.template)
    assert (score.overlong, score.problems) == (1, 1)
    with pytest.raises(ConfigError, match=r"prompt of long has .* --set overlong=filter"):
        evaluate_task(llm, TASK, [long], replace(CONFIG, overlong="error"), template=llm.template)
    with pytest.raises(DataError, match="no prompt of 1 problems fits"):
        evaluate_task(llm, TASK, [long], CONFIG, template=llm.template)


def test_a_model_without_template_is_asked_by_a_format(llm):
    config = TaskEvalConfig(samples=1, k=(1,), max_tokens=4, prompt=PromptStyle(format="Q: {question}\n"))
    score = evaluate_task(llm, TASK, choose_problems(TASK, CONFIG)[:1], config)
    assert score.mean_thinking_tokens == 0
    with pytest.raises(ConfigError, match="no chat template"):
        evaluate_task(llm, TASK, choose_problems(TASK, CONFIG)[:1], CONFIG)
    with pytest.raises(DataError, match="no problem"):
        evaluate_task(llm, TASK, [], CONFIG)


def test_problems_are_chosen_by_the_seed_and_each_is_there_once():
    first = choose_problems(TASK, CONFIG)
    assert choose_problems(TASK, CONFIG) == first
    assert choose_problems(TASK, TaskEvalConfig(problems=6, seed=1)) != first
    many = choose_problems(TASK, TaskEvalConfig(problems=500, split="train"))
    assert len({example.key for example in many}) == len(many) < 500


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 0}, "samples = 0"),
        ({"samples": 129}, "samples = 129"),
        ({"problems": 0}, "problems = 0"),
        ({"samples": 4, "k": (1, 8)}, "k holds 8"),
        ({"temperature": -1.0}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_wrong_settings_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        TaskEvalConfig(**changes)


def test_a_task_with_tools_is_scored_in_conversations(llm, model, tokenizer, folder, monkeypatch, tmp_path):
    def digits(text: str) -> str:
        """Count."""
        return str(len(text))

    class WithTools(Arithmetic):
        tools = (digits,)
        max_turns = 2
        is_pure = False

        def reward(self, example, text):
            return 1.0

    def read(self, prompt_ids, completion):
        call = {"type": "function", "function": {"name": "digits", "arguments": '{"text": "abc"}'}}
        return {"role": "assistant", "content": completion.text, "tool_calls": [call]}

    def call_tools(self, calls):
        return [ToolResult(text="3", is_error=False) for _ in calls]

    monkeypatch.setattr(ToolUse, "read", read)
    monkeypatch.setattr(Verifier, "call_tools", call_tools)
    config = replace(model.config, max_position_embeddings=512)
    longer = initialize(Transformer(config), torch.Generator().manual_seed(1)).eval()
    engine = Engine(longer, tokenizer, EngineSettings(max_model_len=512))
    wide = LLM.of(engine, Checkpoint.open(folder))
    task = WithTools(steps=1, largest=9, limit=90)
    config = TaskEvalConfig(problems=2, samples=2, k=(1,), max_tokens=60, temperature=1.0)
    monkeypatch.setattr(TaskEvalConfig, "params", ending_soon(TaskEvalConfig.params))
    asked = []
    monkeypatch.setattr(Verifier, "submit", lambda self, *a, **k: asked.append(k["messages"]) or None)
    monkeypatch.setattr(Verifier, "results", lambda self, wait: [])
    with pytest.raises(DataError, match="got no verdict"):
        evaluate_task(wide, task, choose_problems(task, config), config, template=wide.template)
    roles = [[message["role"] for message in messages] for messages in asked]
    assert ["assistant", "tool", "assistant"] in roles


def ending_soon(params):
    """The sampling parameters with turns that end at one of many tokens."""
    return lambda self, key: replace(params(self, key), stop_token_ids=list(range(60, 124)))


def test_an_answer_to_which_no_reward_applies_is_left_out_and_no_fault(tokenizer, llm, tmp_path):
    (tmp_path / "r.py").write_text(
        "def f(completions):\n    return [float(c) if c else None for c in completions]\n"
    )
    (tmp_path / "p.jsonl").write_text('{"question": "a?"}\n{"question": "b?"}\n')
    task = load_task(
        str(tmp_path / "r.py"), {"data": str(tmp_path / "p.jsonl"), "test_data": str(tmp_path / "p.jsonl")}
    )
    parrot = Parrot(tokenizer, [["1", ""], ["0", "1"]])
    config = TaskEvalConfig(samples=2, k=(1,), problems=2, prompt=PromptStyle(format="{question}"))
    score = evaluate_task(parrot, task, choose_problems(task, config), config)
    assert (score.faults, score.pass_at_1) == (0, (1.0 + 0.5) / 2)
