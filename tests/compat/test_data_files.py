"""Files for axolotl and LLaMA-Factory, trained on as they are: only the data's path is given."""

import json
from pathlib import Path

import pytest

from shoestring.cli.main import exit_code
from shoestring.data.conversation_files import load_conversations
from shoestring.model.hf.hub import resolve
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.load import load_template

HERE = Path(__file__).parent
END = "<｜end▁of▁sentence｜>"


def learned(name: str) -> list[str]:
    """The text that is learned of each conversation."""
    folder = resolve("mini")
    tokenizer = Tokenizer.load(folder)
    data = load_conversations([HERE / name], tokenizer, load_template(folder, tokenizer), seq_len=512)
    texts, start = [], 0
    for end in data.ends.tolist():
        pairs = zip(data.ids[start:end].tolist(), data.loss_mask[start:end], strict=True)
        texts.append(tokenizer.decode([token for token, is_learned in pairs if is_learned]))
        start = end
    return texts


def test_axolotls_marks_decide_what_is_learned():
    assert learned("axolotl_sharegpt.jsonl") == [f"it is 5.{END}", f"20{END}", f"7{END}"]


def test_llama_factorys_history_is_learned_too():
    assert learned("llama_factory_alpaca.json") == [f"5{END}", f"5{END}five{END}9{END}", f"20{END}"]


def test_llama_factorys_calls_of_tools_are_learned():
    (text,) = learned("llama_factory_sharegpt.json")
    assert "area" in text
    assert '{"side": 3}' in text
    assert text.endswith(f"It is 9.{END}")
    assert '"area": 9' not in text


@pytest.mark.parametrize("name", ["axolotl_sharegpt.jsonl", "llama_factory_alpaca.json"])
def test_fine_tuning_takes_the_file_as_it_is(name, tmp_path, capsys, caplog):
    settings = {"model": "mini", "data": json.dumps([str(HERE / name)]), "epochs": 1, "lora.rank": 2}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert exit_code(["sft", "--quiet", "--out", str(tmp_path / "run"), *options]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["conversations"], report["too_long"], report["bad_rows"]) == (3, 0, 0)
    assert not caplog.records
