"""`receipt verify` finds a changed weight, a changed data file and a changed figure, and repeats a loss."""

import json
import shutil

import pytest

from shoestring.cli.main import exit_code
from shoestring.device import choose
from shoestring.errors import ConfigError, DataError
from shoestring.receipts.compare import planned_and_measured
from shoestring.receipts.read import receipts
from shoestring.receipts.rerun import rerun
from shoestring.receipts.verify import verify
from shoestring.train.report.receipt import digest


def wrong(run) -> set[str]:
    """Names of the checks that fail."""
    (receipt,) = receipts(run)
    return {check.name for check in verify(receipt) if check.is_right is False}


def change(file, edit) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_an_untouched_run_is_right_in_everything(run):
    (receipt,) = receipts(run)
    assert [check.name for check in verify(receipt) if not check.is_right] == []


def test_a_changed_weight(run):
    file = run / "model" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert wrong(run) == {"outputs"}


def test_a_changed_data_file(run, first_run):
    file = first_run[1] / "03.py"
    text = file.read_text()
    try:
        file.write_text(text + "# one line more\n")
        assert wrong(run) == {"data"}
    finally:
        file.write_text(text)


@pytest.mark.parametrize(
    ("name", "value", "also"),
    [
        ("train_flops", 1.0, {"FLOPs", "report"}),
        ("tokens", 5, {"log"}),
        ("seconds", 1e6, {"sums", "report"}),
        ("seed", 1, set()),
        ("start", "2020-01-01T00:00:00+00:00", set()),
    ],
)
def test_a_changed_figure(run, name, value, also):
    change(run / "receipt.json", lambda content: content.update({name: value}))
    assert wrong(run) == {"figures"} | also


def test_a_changed_log(run):
    log = run / "metrics.jsonl"
    *rows, last = log.read_text().splitlines()
    row = json.loads(last)
    log.write_text("\n".join([*rows, json.dumps(row | {"step": row["step"] + 1})]) + "\n")
    assert {"outputs", "log"} <= wrong(run)


def test_flops_that_were_made_up_with_a_new_digest_are_found_by_counting_anew(run):
    def edit(content):
        content["flops"] = {name: value / 2 for name, value in content["flops"].items()}
        content["train_flops"] /= 2
        content["sha256"] = digest(content)

    change(run / "receipt.json", edit)
    assert "FLOPs" in wrong(run)


def test_the_loss_of_the_last_step_comes_out_again(run):
    (receipt,) = receipts(run)
    check = rerun(receipt, choose("cpu"))
    assert check.is_right
    assert "from step 6" in check.detail
    assert "to the bit" in check.detail


def test_another_seed_has_another_last_loss(run):
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("seed = 0", "seed = 1", 1))
    for path in sorted((run / "checkpoints").glob("step-*"))[:-1]:
        shutil.rmtree(path)
    (receipt,) = receipts(run)
    assert rerun(receipt, choose("cpu")).is_right is False


def test_the_plan_of_the_run_says_its_flops_exactly(run):
    (receipt,) = receipts(run)
    figures = planned_and_measured(receipt)
    assert figures["train_flops"]["difference"] == pytest.approx(0.0, abs=1e-9)
    assert set(figures) == {"train_flops", "memory_bytes", "seconds"}


def test_folders_without_a_receipt_say_what_to_do(tmp_path, run):
    with pytest.raises(ConfigError, match="--out"):
        receipts(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--resume"):
        receipts(tmp_path / "empty")
    for text in ("{", "[]", "{}", '{"train_flops": "x"}'):
        (run / "receipt.json").write_text(text)
        with pytest.raises(DataError, match="receipt"):
            receipts(run)


def test_the_command(run, capsys, tmp_path):
    assert exit_code(["receipt", str(run)]) == 0
    text = capsys.readouterr().out
    for words in ("optimizer", "kg CO2", "a test", "planned", "+0.0%"):
        assert words in text
    assert exit_code(["receipt", "verify", str(run)]) == 0
    (run / "model" / "chat_template.jinja").write_text("{}")
    (run / "model" / "tokenizer.json").write_text("{}")
    capsys.readouterr()
    assert exit_code(["receipt", "verify", str(run), "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["is_right"] is False] == ["outputs"]
    (tmp_path / "empty").mkdir()
    assert exit_code(["receipt", str(tmp_path / "none")]) == 2
    assert exit_code(["receipt", str(tmp_path / "empty")]) == 1
