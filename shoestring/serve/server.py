"""The server: one listener, loopback unless there are accounts."""

import gc
import ipaddress
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shoestring.errors import ConfigError
from shoestring.serve.admission.receipt import ReceiptLimits
from shoestring.serve.listener import Listener
from shoestring.serve.protocol import timely_protocol
from shoestring.serve.service import Service
from shoestring.serve.tls import Tls

SWITCH_S = 1e-4
"""Seconds after which the engine's thread lets the event loop go on. Each call into the kernel gives the
interpreter away: with Python's 5 ms, a flood of connections that are only closed would keep users waiting."""
OTHER_FILES = 256
"""Files that the process has open beside connections."""
CONNECTIONS = 10_000
"""Connections of a service without limits of its own: to itself, and to servers behind it."""
DRAIN_S = 30
"""Seconds that replies under way get at the end."""


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone. Raises ConfigError for what is none."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(f"--host {host} is not an IP address; use 127.0.0.1") from None


class Server(uvicorn.Server):
    """A server that refuses new requests from the moment in which it is told to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.is_draining = True
        self._service.drain_end_s = time.monotonic() + DRAIN_S
        super().handle_exit(sig, frame)


def serve_app(
    app: FastAPI,
    service: Service,
    listener: socket.socket,
    *,
    tls: Tls | None = None,
    reloads: Sequence[Callable[[], None]] = (),
) -> None:
    """Serve until SIGINT or SIGTERM; replies under way are finished.

    SIGHUP calls `reloads` and reads the files of `tls` again.
    """
    admission = service.admission
    if admission is None:
        connections_within(CONNECTIONS)
    else:
        listener = Listener(listener, admission.connections)
        admission.connections.total = connections_within(admission.connections.total)
    config = uvicorn.Config(
        app,
        http=timely_protocol(ReceiptLimits() if admission is None else admission.limits.receipt),
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # admission knows which proxies to believe
        timeout_graceful_shutdown=DRAIN_S,
        lifespan="on",
        ssl_context_factory=(lambda *_: tls.context) if tls else None,
    )
    all_reloads = [*reloads, *([tls.reload] if tls else [])]
    if all_reloads:  # else the end of its terminal ends it
        signal.signal(signal.SIGHUP, lambda *_: [reload() for reload in all_reloads])
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # a full collection looks at no module or weight again: 0.3 s without an answer, each time
    gc.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it caught again when it has ended
        signal.signal(number, lambda *_: None)
    Server(config, service).run(sockets=[listener])


def connections_within(num_connections: int) -> int:
    """Let this process open so many connections beside its files; returns how many the system lets it."""
    if sys.platform == "win32":
        return num_connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = num_connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - OTHER_FILES


def listen(host: str, port: int) -> socket.socket:
    """The listening socket; port 0 is a free one. Raises ConfigError when the port is in use."""
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        reason = f"cannot listen on {host}:{port}: {error.strerror}"
        raise ConfigError(f"{reason}; choose another --port") from None
    # Connections inherit it. asyncio sets it only on sockets that name their protocol; without it the first
    # token waits 40 ms for the client's acknowledgment of the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
