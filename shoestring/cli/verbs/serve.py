"""`shoestring serve`: models behind the APIs of OpenAI, Anthropic, DeepSeek and Ollama."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.cli.options import Device
from shoestring.cli.weights import (
    Choices,
    Weights,
    default_form,
    find_checkpoint,
    plan_model,
    read_choices,
    read_size,
)

if TYPE_CHECKING:
    from shoestring.serve.backends.backend import Backend
    from shoestring.serve.backends.lazy import LazyBackend, LoadableModel
    from shoestring.serve.backends.pool import PoolBackend
    from shoestring.serve.config import ServiceConfig
    from shoestring.serve.hosting import Hosting
    from shoestring.serve.service import Service

STREAM_INTERVAL_S = 0.04
"""Tokens that come faster are sent together: 25 events a second look smooth, and an event costs as much as a
token of a small model."""


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models, the default one first; without any, mini.")
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
    from shoestring.serve.app import build_app
    from shoestring.serve.backends.address import read_addresses
    from shoestring.serve.backends.pool import open_pools
    from shoestring.serve.chats.open import open_chats
    from shoestring.serve.hosting import open_hosting
    from shoestring.serve.server import is_loopback, listen, serve_app
    from shoestring.serve.tls import Tls

    service_config, choices = _read_settings(config, settings)
    has_accounts = not is_loopback(host) or service_config.accounts
    addresses = read_addresses(upstreams or ())
    tls = Tls(service_config.tls_cert, service_config.tls_key or "") if service_config.tls_cert else None
    with listen(host, port) as listener:  # first, since models may take long to load
        names, seqs = models or ([] if upstreams else ["mini"]), service_config.max_num_seqs
        own_models = [_model(name, weights, choices, device, seqs) for name in names]
        own = _own_backends(own_models, service_config.memory, device)
        url = f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
        hosting = open_hosting(service_config, url, dict.fromkeys(names, seqs)) if has_accounts else None
        service = _service(service_config, [*own, *open_pools(addresses)], hosting)
        print(f"serving {', '.join(service.backends)} on {url}", flush=True)
        app = build_app(service, hosting, open_chats(service_config, hosting))
        reloads = [hosting.reload] if hosting else []
        serve_app(app, service, listener, tls=tls, reloads=reloads)


def _service(
    config: "ServiceConfig", models: "Sequence[LazyBackend | PoolBackend]", hosting: "Hosting | None"
) -> "Service":
    """The service of models in this process and on other servers; one for others writes its log as JSON."""
    from shoestring.serve.backends.lazy import LazyBackend
    from shoestring.serve.config import check_aliases
    from shoestring.serve.logs import log_json
    from shoestring.serve.service import Service

    backends: dict[str, Backend] = {backend.card.id: backend for backend in models}
    check_aliases(config.aliases, backends)
    if config.translator is not None:
        check_aliases({"translator": config.translator}, backends)
    own = [backend for backend in models if isinstance(backend, LazyBackend)]
    if hosting is not None:
        log_json()
    service = Service(
        backends,
        aliases=config.aliases,
        sampling={backend.card.id: backend.model.sampling for backend in own},
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


def _model(name: str, weights: str | None, choices: Choices, device: str, seqs: int) -> "LoadableModel":
    """A model that is not loaded yet. Raises ConfigError for one that this machine has no memory for."""
    from shoestring.engine.load import default_sampling
    from shoestring.serve.backends.lazy import LoadableModel
    from shoestring.serve.backends.local import LocalBackend

    checkpoint = find_checkpoint(name)
    default = default_form(checkpoint, device) if weights is None else None
    engine = {"stream_interval_s": STREAM_INTERVAL_S, **choices.engine}
    plan = plan_model(checkpoint, weights or default, engine, device, seqs=seqs)
    template = checkpoint.template if checkpoint.has_tokenizer and checkpoint.has_template else None
    sampling = {**default_sampling(checkpoint), **choices.sampling}
    sampling.pop("max_tokens", None)  # the limit is the context
    return LoadableModel(
        name=name,
        num_bytes=plan.num_bytes,
        max_model_len=plan.settings.max_model_len or checkpoint.config.max_position_embeddings,
        tokenizer=checkpoint.tokenizer if checkpoint.has_tokenizer else None,
        template=template,
        sampling=sampling,
        load=lambda: LocalBackend(name, plan.load(), template),
    )


def _own_backends(models: "list[LoadableModel]", memory: str | None, device: str) -> "list[LazyBackend]":
    """The models of this process; those that fit together are loaded now, the first one in any case."""
    from shoestring.errors import ConfigError
    from shoestring.serve.backends.lazy import LazyBackend, ModelMemory

    limit = None if memory is None else read_size(memory)
    if memory is not None and limit is None:
        raise ConfigError(f"memory = {memory!r} is not a size such as 8GiB")
    for model in models:
        if limit is not None and model.num_bytes > limit:
            need = f"{model.name} needs {model.num_bytes / 1e9:.3g} GB"
            raise ConfigError(f"{need}, and memory = {memory!r}; raise it, or quantize the model")
    model_memory = ModelMemory(_free_bytes(limit, device))
    backends = [LazyBackend(model, model_memory) for model in models]
    for backend in backends:
        if backend is backends[0] or model_memory.has_room(backend.model):
            backend.load()
    return backends


def _free_bytes(limit: int | None, device: str) -> Callable[[int], int]:
    """A function that says how much memory is left for models, given the bytes of those that are loaded."""
    from shoestring.device import choose
    from shoestring.engine.paged_cache import available_bytes
    from shoestring.model.memory import RESERVE_BYTES

    if limit is not None:
        return lambda loaded_bytes: limit - loaded_bytes
    place = choose(device).device
    return lambda _: (available_bytes(place) or 1 << 62) - RESERVE_BYTES // 2  # the load itself counts it all
