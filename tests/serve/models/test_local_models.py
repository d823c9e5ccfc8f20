"""Models that are added to a service while it runs."""

import asyncio
from pathlib import Path

import pytest

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.hub import resolve
from shoestring.serve.admission.admission import Admission
from shoestring.serve.backends.lazy import ModelMemory
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.opening import ModelSettings, free_bytes, loadable_model
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder
from tests.serve.words import Words


def test_a_model_is_planned_before_its_weights_are_read():
    model = loadable_model("mini", ModelSettings(seqs=3, sampling={"temperature": 0.1, "max_tokens": 5}))
    assert model.name == "mini"
    assert 1 << 20 < model.num_bytes < 1 << 30
    assert model.max_model_len == 512
    assert model.sampling["temperature"] == 0.1
    assert "max_tokens" not in model.sampling
    assert loadable_model("other", ModelSettings(), str(resolve("mini"))).name == "other"


def test_memory_is_what_was_given_or_what_is_free():
    assert free_bytes(100, "cpu")(30) == 70
    assert free_bytes(None, "cpu")(0) > 0


def test_a_model_is_served_from_now_on_and_no_more():
    service = Service({"words": Words()}, aliases={"gpt-4": "words"}, admission=Admission())
    settings, runs = ModelSettings(device="cpu", seqs=3), RunsFolder(Path("/nonexistent"))
    local = LocalModels(ModelMemory(lambda _: 1 << 40), settings, runs)

    async def course():
        await service.start()
        await local.add(service, "demo/zero", str(resolve("mini")))
        assert list(service.backends) == ["words", "demo/zero"]
        assert service.sampling("demo/zero")["temperature"]
        assert service.admission._turns("demo/zero").queue.limits.slots == 3
        for name in ("demo/zero", "gpt-4"):
            with pytest.raises(ConfigError, match="already"):
                await local.add(service, name, str(resolve("mini")))
        with pytest.raises(CheckpointError):
            await local.add(service, "nothing-here", None)
        await service.remove("demo/zero")
        assert list(service.backends) == ["words"]
        await service.close()

    asyncio.run(course())
