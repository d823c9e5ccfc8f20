"""Bills of materials are valid CycloneDX, and model cards valid cards, of one training and of stages."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from shoestring.cli.main import exit_code
from shoestring.receipts.bom import bill_of_materials
from shoestring.receipts.card import model_card
from shoestring.receipts.read import receipts


def faults(document) -> object:
    """Faults by the schema that CycloneDX publishes; None without any."""
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    return validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(json.dumps(document))


@pytest.fixture
def stages(run, tmp_path):
    """A run of two stages, of which the second is reinforcement without energy."""
    for name in ("base", "rl"):
        shutil.copytree(run, tmp_path / "recipe" / name)
    file = tmp_path / "recipe" / "rl" / "receipt.json"
    content = json.loads(file.read_text())
    start = {"name": "org/model", "commit": "abc"}
    content |= {
        "data": {"tasks": [{"name": "countdown"}], "questions": 5, "start": start},
        "energy": {"joules": "unavailable", "how": "unavailable", "detail": "no counters"},
        "footprint": "unavailable",
        "start": "2099-01-01T00:00:00+00:00",
    }
    file.write_text(json.dumps(content))
    return tmp_path / "recipe"


def test_a_bill_is_valid_and_names_weights_data_and_code(run):
    document = bill_of_materials("run", receipts(run))
    assert faults(document) is None
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert any(file["name"] == "model/model.safetensors" for file in model["components"])
    names = {component["name"] for component in document["components"]}
    assert {"torch", "shoestring-llm"} <= names
    assert sum(component["type"] == "data" for component in document["components"]) == 20
    assert model["modelCard"]["considerations"]["environmentalConsiderations"]["energyConsumptions"]


def test_a_bill_of_stages_is_valid(stages):
    document = bill_of_materials("recipe", receipts(stages))
    assert faults(document) is None
    assert document["metadata"]["component"]["name"] == "recipe/rl"
    assert "recipe/base" in {component["name"] for component in document["components"]}
    assert "countdown" in {component["name"] for component in document["components"]}


def test_a_fault_is_seen_by_the_validator(run):
    document = bill_of_materials("run", receipts(run))
    document["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "magic"
    assert faults(document) is not None


def test_a_card_has_lineage_data_costs_and_a_header(run, stages):
    text = model_card("run", receipts(run))
    card = ModelCard(text)
    assert card.data.library_name == "transformers"
    assert "random weights" in text
    assert "00.py" in text
    assert "kg CO2" in text
    card = ModelCard(model_card("recipe", receipts(stages)))
    assert card.data.base_model == "org/model"
    assert "countdown" in card.text


def test_names_of_files_are_no_markup(run):
    (receipt,) = receipts(run)
    receipt.content["data"]["files"][0]["path"] = "<script>|x\n# y"
    text = model_card("run", [receipt])
    assert "<script>" not in text
    assert "\n# y" not in text


def test_the_commands_write_files(run, tmp_path, capsys):
    for command, file in (("bom", "bom.json"), ("card", "README.md")):
        assert exit_code(["receipt", command, str(run), "--out", str(tmp_path / file)]) == 0
        assert (tmp_path / file).stat().st_size > 500
        assert exit_code(["receipt", command, str(run)]) == 0
    assert "wrote" in capsys.readouterr().out
