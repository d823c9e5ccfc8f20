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
    weights: Weights = None,
    settings: Sampling = [],  # noqa: B006 (typer copies it)
    device: Device = "auto",
) -> None:
    """Serve models on this machine, for its own programs: no key is asked.

    The base URL for OpenAI's clients is http://127.0.0.1:8000/v1. Ctrl-C ends it.
    """
    from shoestring.serve.app import build_app
    from shoestring.serve.server import check_address, listen, serve_app
    from shoestring.serve.service import Service

    check_address(host)
    listener = listen(host, port)
    backends = {
        backend.card.id: backend
        for backend in [_backend(model, weights, settings, device) for model in models or ["mini"]]
    }
    sampling = {name: backend.sampling for name, backend in backends.items()}
    app = build_app(Service(backends, sampling=sampling))
    print(f"serving {', '.join(backends)} on http://{host}:{listener.getsockname()[1]}", flush=True)
    serve_app(app, listener)


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
