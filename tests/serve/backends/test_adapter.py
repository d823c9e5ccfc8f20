"""Adapters behind the service: each a model of its own in the list, in one engine, as exact as merged."""

import asyncio
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.merge import merge_adapter
from shoestring.model.hf.peft import save_adapter
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.adapter import AdapterBackend
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend, ModelMemory
from shoestring.serve.backends.reply import fold
from shoestring.serve.backends.request import ChatRequest, TextRequest
from shoestring.serve.models.local_models import LocalModels
from shoestring.serve.models.opening import ModelSettings, loadable_model, split_adapters
from shoestring.serve.routes.openai import model_fields
from shoestring.serve.service import Service
from shoestring.serve.training.folder import RunsFolder

SETTINGS = ModelSettings(engine={"max_model_len": 128}, device="cpu", seqs=4)
SAMPLING = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
CHAT = ChatRequest(messages=({"role": "user", "content": "Use 3, 5 to make 8."},), sampling=SAMPLING)
TEXT = TextRequest(prompt="2+3=", sampling=SAMPLING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of mini, and mini with each of them merged."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("sql", "poem")):
        model = load_model(Checkpoint.open(resolve("mini")))
        add_adapters(model, LoraConfig(rank=4), torch.Generator().manual_seed(seed))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(seed))
        save_adapter(model, root / name, base="mini")
        merge_adapter(root / name, root / f"merged-{name}")
    return root


def with_adapters(folder: Path, *names: str) -> LocalModels:
    memory = ModelMemory(lambda loaded_bytes: 1 << 40)
    adapters = {name: str(folder / name) for name in names}
    base = LazyBackend(loadable_model("mini", SETTINGS, adapters=adapters), memory)
    served = [AdapterBackend(name, base) for name in names]
    return LocalModels(memory, SETTINGS, RunsFolder(folder / "runs"), served)


async def ask(service: Service, model: str, request: ChatRequest | TextRequest) -> str:
    work = await service.backend(model).prepare(request)
    assert work.model == model
    choice = (await fold(await work.start(), 1)).choices[0]
    return choice.thinking + choice.text


def new_service(models: LocalModels) -> Service:
    return Service({backend.card.id: backend for backend in models.backends})


def test_each_answers_as_its_merged_model_while_all_answer_at_once(folder):
    async def work() -> None:
        models = with_adapters(folder, "sql", "poem")
        merged = [str(folder / f"merged-{name}") for name in ("sql", "poem")]
        alone = [LazyBackend(loadable_model(name, SETTINGS), models.memory) for name in merged]
        service = Service({each.card.id: each for each in (*models.backends, *alone)})
        await service.start()
        try:
            for request in (CHAT, TEXT):
                together = await asyncio.gather(
                    *(ask(service, name, request) for name in ("mini", "sql", "poem"))
                )
                expected = [await ask(service, each.card.id, request) for each in alone]
                assert together[1:] == expected
                assert len(set(together)) == 3
            assert models.backends[0].local.engine.counters.requests == 6
        finally:
            await service.close()

    asyncio.run(work())


def test_the_list_of_models_names_the_parent(folder):
    models = with_adapters(folder, "sql")
    service = new_service(models)
    assert [model_fields(service, name)["parent"] for name in service.backends] == [None, "mini"]
    assert models.slots == {"mini": 4, "sql": 4}
    assert models.backends[0].model.num_bytes > loadable_model("mini", SETTINGS).num_bytes


def test_an_adapter_goes_with_its_model(folder):
    async def work() -> None:
        models = with_adapters(folder, "sql")
        service = new_service(models)
        with pytest.raises(RequestError, match="this is the last model"):
            await models.unload(service, "mini")
        await models.add(service, str(folder / "merged-sql"))
        await models.unload(service, "mini")
        assert list(service.backends) == [str(folder / "merged-sql")]

    asyncio.run(work())


def test_names_become_models_and_adapters_of_one_engine(folder):
    sql, poem = f"mini+{folder / 'sql'}", f"mini+{folder / 'poem'}"
    assert split_adapters(["mini", sql, poem], {"short": "x"}) == (
        ["mini"],
        {"mini": {sql: str(folder / "sql"), poem: str(folder / "poem"), "short": "x"}},
    )
    assert split_adapters([sql], {}) == ([sql], {})  # alone it is merged
    assert split_adapters(["mini", f"{sql}+{folder / 'poem'}"], {})[1] == {}
    for names, adapters in (
        (["mini", "mini"], {}),
        (["mini", sql, sql], {}),
        (["mini"], {"mini": "x"}),
        ([], {"a": "x"}),
    ):
        with pytest.raises(ConfigError, match=r"is the name of two models|name one to serve it"):
            split_adapters(names, adapters)


def test_an_adapter_that_is_none_is_refused_before_the_model_is_read(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        loadable_model("mini", SETTINGS, adapters={"none": str(tmp_path)})
    with pytest.raises(CheckpointError, match="there is no folder"):
        loadable_model("mini", SETTINGS, adapters={"none": "nowhere"})
