"""The training page: a run as it goes on, its curves, samples and receipts, stop and resume."""

import json
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.page.running import Running
from tests.serve.training.folders import write_run

TRAIN = """
import signal, sys, time
from pathlib import Path
from shoestring.train.runs.lock import run_lock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
with run_lock(Path(sys.argv[1]), until="student"):
    print("training", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a service with a run of several stages and one of a single training."""
    folder = tmp_path_factory.mktemp("training")
    write_run(folder / "runs" / "demo")
    single = folder / "runs" / "alone <b>"
    single.mkdir()
    (single / "config.toml").write_text("steps = 4\nnum_generations = 2\n")
    rows = [{"step": step, "accuracy": 0.1 * step, "eval_accuracy": 0.2} for step in (1, 2, 3, 4)]
    (single / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (single / "report.json").write_text("{}")
    receipt = {
        "seconds": 75,
        "energy": {"joules": 3000, "how": "measured"},
        "machine": {"cpu": "a processor"},
    }
    (single / "receipt.json").write_text(json.dumps(receipt))
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """The service in that folder."""
    running = Running(folder, "mini")
    running.start()
    yield running
    running.stop()


def test_a_run_is_watched_stopped_and_resumed(open_page, trained, folder):
    run = folder / "runs" / "demo"
    page = open_page("#/training/demo", of=trained)
    expect(page.get_by_text("Stage 3 of 4 · stopped")).to_be_visible()
    expect(page.get_by_role("button", name="sft")).to_have_count(0)
    command = [sys.executable, "-c", TRAIN, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "training\n"
        expect(page.get_by_text("Stage 3 of 4 · running")).to_be_visible()
        expect(page.get_by_text("about 18 sec left in this stage")).to_be_visible()
        chart = page.get_by_role("img", name="Right answers")
        expect(chart).to_have_attribute(
            "aria-label", "Right answers: from 10% at step 1 to 40% at step 4. Arrow keys show other steps."
        )
        with (run / "zero" / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 5, "accuracy": 0.75, "sample_s": 2.0, "update_s": 1.0}) + "\n")
        expect(page.get_by_role("img", name="to 75% at step 5")).to_be_visible()
        page.get_by_role("button", name="Stop and save").click()
        page.get_by_role("alertdialog").get_by_role("button", name="Stop and save").click()
        expect(page.get_by_text("It saves its state and ends.")).to_be_visible()
        assert process.wait(timeout=20) == 75
    expect(page.get_by_text("Stage 3 of 4 · stopped")).to_be_visible()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Go on").click()
    failure = page.get_by_text("The training ended with an error")  # its recipe is no whole one
    expect(failure).to_be_visible(timeout=40_000)


def test_a_curve_is_read_by_keyboard_and_as_a_table(open_page, trained):
    page = open_page("#/training/demo", of=trained, size="phone", scheme="dark")
    page.get_by_role("button", name="base finished").click()
    chart = page.get_by_role("img", name="Loss")
    chart.focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("figure").filter(has_text="Loss")).to_contain_text("step 9")
    page.get_by_text("The curves as a table").click()
    expect(page.get_by_role("row", name="10 0.3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_answers_get_better_and_are_text_alone(open_page, trained, folder):
    samples = folder / "runs" / "demo" / "zero" / "samples.jsonl"
    hostile = {
        "step": 9,
        "question": "<img src=x onerror=alert(1)>",
        "text": "<b>9</b>",
        "parts": {"accuracy": 1},
    }
    with samples.open("a") as file:
        file.write("[" * 5000 + "\n" + json.dumps(hostile) + "\n")
    page = open_page("#/training/demo", of=trained)
    page.get_by_role("button", name="zero", exact=False).first.click()
    expect(page.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()
    page.get_by_role("button", name="step 1", exact=True).click()
    expect(page.get_by_text("✗ wrong")).to_be_visible()
    page.get_by_role("button", name="step 4", exact=True).click()
    expect(page.get_by_text("✓ right")).to_be_visible()


def test_two_runs_are_on_one_chart(open_page, trained):
    page = open_page("#/training/demo", of=trained, size="tablet")
    page.get_by_role("combobox", name="Run").select_option("alone <b>")
    expect(page.get_by_text("1 min 15 sec")).to_be_visible()
    expect(page.get_by_text("3KJ")).to_be_visible()
    page.get_by_role("combobox", name="Compare with").select_option("demo")
    expect(page.locator("path.line1")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_runs_it_says_how_to_begin(open_page, service):
    page = open_page("#/training", of=service, language="de")
    expect(page.get_by_text("Hier lief noch kein Training.")).to_be_visible()
    expect(page.get_by_text("shoestring demo")).to_be_visible()
