"""`shoestring serve`: models behind the APIs of OpenAI, Anthropic, DeepSeek and Ollama."""

from typing import TYPE_CHECKING, Annotated

import typer

from shoestring.cli.options import Device
from shoestring.cli.weights import Sampling, Weights, default_form, find_checkpoint, open_model, read_choices

if TYPE_CHECKING:
    from shoestring.serve.backends.local import LocalBackend


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
            "--upstream", help="URL of an OpenAI-compatible server whose models to offer; repeatable."
        ),
    ] = None,
    upstream_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key of the upstreams.")
    ] = "",
    weights: Weights = None,
    settings: Sampling = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
) -> None:
    """Serve models on this machine, for its own programs: no key is asked.

    The base URL for OpenAI's clients is http://127.0.0.1:8000/v1, for Anthropic's and Ollama's without /v1.
    Ctrl-C ends it. With --upstream it stands in front of vLLM, SGLang or llama.cpp on this or other machines.
    """
    from shoestring.serve.app import build_app
    from shoestring.serve.backends.backend import Backend
    from shoestring.serve.backends.upstream import upstream_backends
    from shoestring.serve.server import check_address, listen, serve_app
    from shoestring.serve.service import Service

    check_address(host)
    with listen(host, port) as listener:  # first, since models may take long to load
        own = [_backend(name, weights, settings, device) for name in _names(models, upstreams)]
        far = [backend for url in upstreams or () for backend in upstream_backends(url, upstream_key_env)]
        backends: dict[str, Backend] = {backend.card.id: backend for backend in own}
        backends |= {backend.card.id: backend for backend in far}
        service = Service(backends, sampling={backend.card.id: backend.sampling for backend in own})
        print(f"serving {', '.join(backends)} on http://{host}:{listener.getsockname()[1]}", flush=True)
        serve_app(build_app(service), service, listener)


def _names(models: list[str] | None, upstreams: list[str] | None) -> list[str]:
    """The models of this process: those that are named; without any, mini, unless there are upstreams."""
    return models or ([] if upstreams else ["mini"])


def _backend(model: str, weights: str | None, settings: list[str], device: str) -> "LocalBackend":
    """A model with its engine, as `run` loads it."""
    from shoestring.serve.backends.local import LocalBackend

    choices = read_choices(settings)
    checkpoint = find_checkpoint(model)
    default = default_form(checkpoint, device) if weights is None else None
    llm = open_model(checkpoint, weights or default, choices.engine, device)
    template = llm.template if llm.has_template else None
    sampling = {**llm.default_sampling, **choices.sampling}
    return LocalBackend(model, llm.engine, template, sampling=sampling)
