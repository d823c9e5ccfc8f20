"""`shoestring serve`: models behind the APIs of OpenAI, Anthropic, DeepSeek and Ollama."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.cli.options import Device
from shoestring.cli.start import modules_kept
from shoestring.cli.weights import Choices, Weights, progress_bar, read_choices
from shoestring.engine.offline.plan import read_size

if TYPE_CHECKING:
    from shoestring.serve.backends.adapter import AdapterBackend
    from shoestring.serve.backends.backend import Backend
    from shoestring.serve.backends.lazy import LazyBackend
    from shoestring.serve.backends.pool import PoolBackend
    from shoestring.serve.config import ServiceConfig
    from shoestring.serve.hosting import Hosting
    from shoestring.serve.models.local_models import LocalModels
    from shoestring.serve.models.opening import ModelSettings
    from shoestring.serve.service import Service


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models, the default one first, MODEL+ADAPTER; else mini.")
    ] = None,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    upstreams: Annotated[
        list[str] | None,
        typer.Option(
            "--upstream",
            metavar="URL[,weight=N][,key_env=NAME]",
            help="An OpenAI-compatible server whose models to offer, with its share of the requests and the "
            "environment variable that has its key; repeatable.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with the settings of the service (ServiceConfig).")
    ] = None,
    weights: Weights = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A setting of the service, of sampling or of the engine, such as aliases.gpt-4=mini, "
            "temperature=0.6 or max_model_len=4096; repeatable.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
) -> None:
    """Serve models: on this machine, for its own programs, no key is asked; for others, there are accounts.

    Any --host but this machine's own, and --set accounts=true, ask every caller for an API key.
    The base URL for OpenAI's clients is http://127.0.0.1:8000/v1, for Anthropic's and Ollama's without /v1.
    Ctrl-C ends it. With --upstream it stands in front of vLLM, SGLang or llama.cpp on this or other machines:
    a model that several of them have is one model here, and each request goes to one that answers.
    """
    with modules_kept():
        from shoestring.serve.app import build_app
        from shoestring.serve.backends.address import read_addresses
        from shoestring.serve.backends.pool import open_pools
        from shoestring.serve.chats.open import open_chats
        from shoestring.serve.hosting import open_hosting
        from shoestring.serve.server import is_loopback, listen, serve_app
        from shoestring.serve.tls import Tls
        from shoestring.serve.training.runs import Runs

    addresses, (service_config, choices) = read_addresses(upstreams or ()), _read_settings(config, settings)
    has_accounts = not is_loopback(host) or service_config.accounts
    tls = Tls(service_config.tls_cert, service_config.tls_key or "") if service_config.tls_cert else None
    with listen(host, port) as listener:  # first, since models may take long to load
        names, seqs = models or ([] if upstreams else ["mini"]), service_config.max_num_seqs
        own = open_local(names, _model_settings(weights, choices, device, seqs), service_config)
        url = f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
        hosting = open_hosting(service_config, url, own.slots) if has_accounts else None
        service = open_service(service_config, [*own.backends, *open_pools(addresses)], hosting)
        print(f"serving {', '.join(service.backends)} on {url}", flush=True)
        chats, runs = open_chats(service_config, hosting), Runs(own.runs, None if hosting else own.memory)
        app = build_app(service, hosting, chats, local_models=own, runs=runs)
        serve_app(app, service, listener, tls=tls, reloads=[hosting.reload] if hosting else [])


def open_service(
    config: "ServiceConfig",
    models: "Sequence[LazyBackend | AdapterBackend | PoolBackend]",
    hosting: "Hosting | None",
) -> "Service":
    """The service of models in this process and on other servers; one for others writes its log as JSON."""
    from shoestring.serve.backends.adapter import AdapterBackend
    from shoestring.serve.backends.lazy import LazyBackend
    from shoestring.serve.config import check_aliases
    from shoestring.serve.logs import log_json
    from shoestring.serve.service import Service

    backends: dict[str, Backend] = {backend.card.id: backend for backend in models}
    check_aliases(config.aliases, backends)
    if config.translator is not None:
        check_aliases({"translator": config.translator}, backends)
    own = {
        backend.card.id: backend.base if isinstance(backend, AdapterBackend) else backend
        for backend in models
        if isinstance(backend, LazyBackend | AdapterBackend)
    }
    if hosting is not None:
        log_json()
    service = Service(
        backends,
        aliases=config.aliases,
        sampling={name: backend.model.sampling for name, backend in own.items()},
        meter=hosting.meter if hosting else None,
        admission=hosting.admission if hosting else None,
        gate=hosting.gate if hosting else None,
        deepseek_era=config.deepseek_era,
    )
    service.translator = config.translator
    return service


def _read_settings(path: Path | None, settings: list[str]) -> "tuple[ServiceConfig, Choices]":
    """The settings of the service, in a file or by --set, and those of sampling and the engine."""
    from dataclasses import fields

    from shoestring.config import build, load, override
    from shoestring.serve.config import ServiceConfig

    names = {field.name for field in fields(ServiceConfig)}
    own = [setting for setting in settings if setting.partition("=")[0].split(".")[0].strip() in names]
    choices = read_choices([setting for setting in settings if setting not in own])
    if path is not None:
        return load(ServiceConfig, path, own), choices
    return build(ServiceConfig, override({}, own), where="--set"), choices


def _model_settings(weights: str | None, choices: Choices, device: str, seqs: int) -> "ModelSettings":
    from shoestring.serve.models.opening import ModelSettings

    return ModelSettings(
        weights=weights,
        engine=choices.engine,
        sampling=choices.sampling,
        device=device,
        seqs=seqs,
        progress=progress_bar,
    )


def open_local(names: Sequence[str], settings: "ModelSettings", config: "ServiceConfig") -> "LocalModels":
    """The models of this process; those that fit together are loaded now, the first one in any case."""
    from dataclasses import replace

    from shoestring.errors import ConfigError
    from shoestring.serve.backends.adapter import AdapterBackend
    from shoestring.serve.backends.energy import EnergyShares
    from shoestring.serve.backends.lazy import LazyBackend, ModelMemory
    from shoestring.serve.models.local_models import LocalModels
    from shoestring.serve.models.opening import energy_meter, free_bytes, loadable_model, split_adapters
    from shoestring.serve.training.folder import RunsFolder

    settings = replace(settings, energy=EnergyShares(energy_meter(config.watts, settings.device)))
    names, adapters = split_adapters(names, config.adapters)
    memory = config.memory
    models = [loadable_model(name, settings, adapters=adapters.get(name)) for name in names]
    limit = None if memory is None else read_size(memory)
    if memory is not None and limit is None:
        raise ConfigError(f"memory = {memory!r} is not a size such as 8GiB")
    for model in models:
        if limit is not None and model.num_bytes > limit:
            need = f"{model.name} needs {model.num_bytes / 1e9:.3g} GB"
            raise ConfigError(f"{need}, and memory = {memory!r}; raise it, or quantize the model")
    model_memory = ModelMemory(free_bytes(limit, settings.device))
    backends = [LazyBackend(model, model_memory) for model in models]
    for backend in backends:
        if backend is backends[0] or model_memory.has_room(backend.model):
            backend.load()
    served = [
        AdapterBackend(name, backend) for backend in backends for name in adapters.get(backend.card.id, {})
    ]
    return LocalModels(model_memory, settings, RunsFolder(Path(config.runs)), served)
