"""lm-evaluation-harness through our adapter; what needs the library is skipped where it is not installed."""

import importlib.util
import json

import pytest

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.evals.harness import Adapter, HarnessConfig, evaluate_harness, make_lm, read_results
from shoestring.model.hf.folder import save_model
from shoestring.tokenizer.special import BOS, THINK

INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_library = pytest.mark.skipif(not INSTALLED, reason="lm-eval (extra `eval`) is not installed")
# The library's own dependencies warn on their imports.
pytestmark = pytest.mark.filterwarnings("default")

DOCUMENTS = [
    {"question": f"What is {a} + 4?", "options": [" Seven.", f" {a + 4}"], "right": 1} for a in range(6)
]
COMMON = "dataset_path: json\ndataset_kwargs: {{data_files: {data}}}\ntest_split: train\n"
CHOICE = """task: tiny_choice
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: right
metric_list: [{metric: acc}]
"""
WRITE = """task: tiny_write
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{options[right]}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 5}
metric_list: [{metric: exact_match}]
"""
READ = """task: tiny_read
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "data.json").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    for name, text in {"choice": CHOICE, "write": WRITE, "read": READ}.items():
        (folder / f"{name}.yaml").write_text(text + COMMON.format(data=folder / "data.json"))
    return folder


@pytest.fixture
def adapter(llm):
    return Adapter(llm, HarnessConfig(max_tokens=7))


@needs_library
def test_local_tasks_are_scored_and_score_the_same_again(llm, tasks):
    config = HarnessConfig(include_path=str(tasks), num_fewshot=0)
    names = ["tiny_choice", "tiny_write", "tiny_read"]
    found = evaluate_harness(llm, names, config)
    assert set(found) == set(names)
    assert 0 <= found["tiny_choice"]["figures"]["acc"] <= 1
    assert found["tiny_read"]["figures"]["bits_per_byte"] > 0
    assert found["tiny_choice"]["problems"] == len(DOCUMENTS)
    assert json.loads(json.dumps(found)) == found
    assert evaluate_harness(llm, names, config) == found
    chat = evaluate_harness(
        llm,
        ["tiny_write"],
        HarnessConfig(include_path=str(tasks), apply_chat_template=True, thinking=True, limit=2),
    )
    assert chat["tiny_write"]["problems"] == 2
    with pytest.raises(ConfigError, match="no task 'tiny_wrote'; similar names are tiny_write"):
        evaluate_harness(llm, ["tiny_wrote"], config)


@needs_library
def test_numbers_are_those_of_the_harness_own_transformers_model(llm, folder, tmp_path):
    """The library's HFLM on the exported weights: choices, empty contexts, whole texts, greedy answers."""
    pytest.importorskip("transformers")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(llm.engine.model, tmp_path, tokenizer_files=folder)
    words = AutoTokenizer.from_pretrained(tmp_path)
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, llm.get_tokenizer().bos_id)]
    )
    theirs = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(tmp_path),
        tokenizer=words,
        add_bos_token=True,
        max_length=llm.engine.max_model_len,
        device="cpu",
        batch_size=2,
    )
    ours = make_lm(llm, HarnessConfig())

    def ask(method, arguments):
        requests = [Instance("loglikelihood", {}, args, n) for n, args in enumerate(arguments)]
        return [getattr(lm, method)(requests, disable_tqdm=True) for lm in (ours, theirs)]

    pairs = [(d["question"], option) for d in DOCUMENTS for option in d["options"]]
    mine, expected = ask("loglikelihood", [*pairs, ("", "Seven."), ("The answer is ", "49")])
    assert [logp for logp, _ in mine] == pytest.approx([logp for logp, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]
    settings = {"until": ["\n\n"], "max_gen_toks": 6}
    mine, expected = ask("generate_until", [(d["question"], settings) for d in DOCUMENTS])
    assert mine == expected
    # Theirs also scores the begin token that it puts in front of whole texts; ours scores the text.
    theirs.add_bos_token = False
    text = "What is 3 + 4? Seven. " * 20
    mine, expected = ask("loglikelihood_rolling", [(text,), ("Seven.",)])
    assert len(ours.tok_encode(text)) > llm.engine.max_model_len
    assert mine == pytest.approx(expected, rel=1e-5)


def test_texts_begin_with_the_begin_token_and_hold_no_other(adapter, llm):
    bos = adapter.tokenizer.bos_id
    ids = adapter.tokenizer.encode("Seven.", add_special_tokens=False)
    assert adapter.encode("Seven.") == [bos, *ids]
    assert adapter.encode("Seven.", begin=False) == ids
    think = adapter.tokenizer.special_id(THINK)
    assert think not in adapter.encode(THINK)
    chat = Adapter(llm, HarnessConfig(apply_chat_template=True, thinking=True))
    prompt = chat.chat([{"role": "user", "content": "What is 3 + 4?"}], True)
    assert chat.encode(prompt).count(bos) == 1
    assert chat.encode(prompt)[-1] == think
    history = [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "It is"}]
    assert chat.chat(history, False).endswith("It is")


@pytest.mark.parametrize(
    ("settings", "temperature", "max_tokens", "stop"),
    [
        ({}, 0.0, 7, ()),
        ({"until": "\n"}, 0.0, 7, ("\n",)),
        ({"do_sample": False, "temperature": 0.9, "max_gen_toks": 3}, 0.0, 3, ()),
        ({"temperature": 0.9, "max_tokens": 3, "until": ["a", ""]}, 0.9, 3, ("a",)),
        ({"do_sample": True, "max_new_tokens": 3, "max_gen_toks": 2, "top_p": 0.5}, 1.0, 2, ()),
    ],
)
def test_generation_settings_are_read_as_the_harness_reads_them(
    adapter, settings, temperature, max_tokens, stop
):
    params, until = adapter.generation(settings)
    assert (params.temperature, params.max_tokens, tuple(params.stop), until) == (
        temperature,
        max_tokens,
        stop,
        stop,
    )


def test_settings_that_cannot_be_kept_are_refused(adapter):
    with pytest.raises(ConfigError, match="'num_beams'"):
        adapter.generation({"num_beams": 4})
    with pytest.raises(ConfigError, match="wants 128 tokens and the context holds 128"):
        adapter.generate([("x", {"max_gen_toks": 128})])
    with pytest.raises(ConfigError, match="apply_chat_template = true"):
        HarnessConfig(thinking=True)
    with pytest.raises(ConfigError, match="limit = 0"):
        HarnessConfig(limit=0)


def test_long_contexts_lose_their_beginning_and_stop_strings_cut(adapter, llm):
    text = "What is 3 + 4? Seven. " * 30
    room = llm.engine.max_model_len - 6
    kept = llm.generate({"prompt_token_ids": adapter.encode(text)[-room:]}, adapter.generation({}).params)
    whole = kept[0].outputs[0].text[:3]
    (answer,) = adapter.generate([(text, {"max_gen_toks": 6})])
    assert answer.startswith(whole)
    (cut,) = adapter.generate([(text, {"max_gen_toks": 6, "until": [answer[1:]]})])
    assert cut == answer[:1]


def test_with_thinking_the_task_sees_the_answer_and_stops_there(llm):
    adapter = Adapter(llm, HarnessConfig(apply_chat_template=True, thinking=True))
    generation = adapter.generation({"until": ["\n\n"]})
    assert generation.params.stop == []
    assert adapter._cut("so\n\nso</think>\n\n49\n\nmore", generation.until) == "49"


def test_results_lose_notes_and_what_is_no_number():
    found = {
        "results": {"t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": float("nan"), "f1,strict": 1}},
        "versions": {"t": 2},
        "n-shot": {"t": 3},
        "n-samples": {"t": {"original": 9, "effective": 4}},
    }
    expected = {"figures": {"acc": 0.5, "f1,strict": 1.0}, "version": 2, "num_fewshot": 3, "problems": 4}
    assert read_results(found) == {"t": expected}


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_without_the_library_one_sentence_says_what_to_install(llm):
    with pytest.raises(MissingDependencyError, match=r"shoestring-llm\[eval\]"):
        evaluate_harness(llm, ["arc_easy"], HarnessConfig())
