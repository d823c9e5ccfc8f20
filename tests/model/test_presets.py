"""The presets are whole: consistent numbers, and the demo has the size the README states."""

import subprocess
import sys

import pytest

from shoestring.model.check import check
from shoestring.model.cost import parameters
from shoestring.model.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_consistent(name: str) -> None:
    check(PRESETS[name])


def test_the_small_ones_are_v3_shaped_and_small() -> None:
    for name, most in [("tiny", 100_000), ("demo", 3_000_000), ("v3-12m", 12_000_000)]:
        config = PRESETS[name]
        assert config.model_type == "deepseek_v3"
        assert config.moe is not None
        assert config.moe.topk_method == "noaux_tc"
        assert config.num_nextn_predict_layers == 1
        assert parameters(config).total < most
    assert parameters(PRESETS["v3-12m"]).total == 11_694_272


def test_shapes_and_costs_need_no_torch() -> None:
    """`show` and `resolve` answer at once: these modules do not import it, nor the hub's client."""
    loaded = "{'torch', 'huggingface_hub'} & set(sys.modules)"
    modules = (
        "from shoestring.model import presets, cost, memory; from shoestring.model.hf import checkpoint, hub"
    )
    code = f"import sys\n{modules}\nprint({loaded})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"
