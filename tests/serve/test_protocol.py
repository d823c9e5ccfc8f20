"""Deadlines and limits of a connection, with raw sockets on a real server."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from shoestring.serve.admission.connections import ConnectionLimits, Connections
from shoestring.serve.admission.receipt import ReceiptLimits
from shoestring.serve.listener import Listener
from shoestring.serve.protocol import timely_protocol

LIMITS = ReceiptLimits(
    head_s=0.3,
    head_bytes=2048,
    headers=20,
    body_s=1.2,
    slow_s=0.3,
    least_bytes_per_s=1000.0,
    idle_s=0.4,
    reading_s=0.4,
)
WAIT_S = 10.0
"""The longest that a test waits; each deadline above ends it long before."""


class App:
    """Reads the body, then answers with its length, or with as many bytes as the path says."""

    def __init__(self) -> None:
        self.is_cancelled = threading.Event()

    async def __call__(self, scope, receive, send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.is_cancelled.set()
                return
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        reply = b"x" * int(scope["path"][1:] or 0) or str(size).encode()
        length = (b"content-length", str(len(reply)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        for begin in range(0, len(reply), 65536):
            part = reply[begin : begin + 65536]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def app() -> App:
    return App()


@pytest.fixture(scope="module")
def connections() -> Connections:
    return Connections(ConnectionLimits(per_address=6, new_per_s=1e6, again_per_s=1e6, new_per_network_s=1e6))


@pytest.fixture(scope="module")
def address(app: App, connections: Connections) -> Iterator[tuple[str, int]]:
    """The address of a server with short deadlines."""
    plain = socket.create_server(("127.0.0.1", 0))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # what waits, waits in the process
    listener = Listener(plain, connections)
    config = uvicorn.Config(
        app, log_config=None, http=timely_protocol(LIMITS), loop="asyncio", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join()


def connect(address: tuple[str, int], source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(address, source_address=(source, 0))
    connection.settimeout(WAIT_S)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """The bytes that come until the server closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_reply(connection: socket.socket) -> bytes:
    """The body of one short reply."""
    data = b""
    while not data.partition(b"\r\n\r\n")[2]:
        part = connection.recv(4096)
        assert part, data
        data += part
    return data.partition(b"\r\n\r\n")[2]


def post(length: int, path: str = "/") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def trickle(connection: socket.socket, data: bytes, pause_s: float, times: int = 200) -> None:
    """Send data again and again until the server closes."""
    try:
        for _ in range(times):
            connection.sendall(data)
            time.sleep(pause_s)
    except OSError:
        return
    raise AssertionError("the server took it all")


def test_a_request_in_time_is_answered_and_the_connection_stays(address):
    with connect(address) as connection:
        for _ in range(3):
            connection.sendall(post(5) + b"hello")
            assert read_reply(connection) == b"5"


def test_a_silent_connection_is_closed_without_a_word(address):
    with connect(address) as connection:
        assert read_all(connection) == b""


def test_a_slow_head_is_answered_with_408(address):
    with connect(address) as connection:
        trickle(connection, b"G", 0.02)
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_slow_head_on_a_connection_that_was_used_before(address):
    with connect(address) as connection:
        connection.sendall(post(5) + b"hello")
        assert read_reply(connection) == b"5"
        trickle(connection, b"G", 0.02)
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_closed(address):
    with connect(address) as connection:
        connection.sendall(post(5) + b"hello")
        assert read_all(connection).endswith(b"5")


def test_a_body_below_the_least_rate_is_answered_with_408_and_the_app_is_told(address, app):
    app.is_cancelled.clear()
    with connect(address) as connection:
        connection.sendall(post(4000))
        trickle(connection, b"x", 0.02)
        assert read_all(connection).startswith(b"HTTP/1.1 408")
    assert app.is_cancelled.wait(WAIT_S)


def test_a_body_above_the_least_rate_has_its_time_and_no_more(address):
    with connect(address) as connection:
        connection.sendall(post(10**6))
        trickle(connection, b"x" * 200, 0.02, times=500)
        assert read_all(connection)[:12] in (b"HTTP/1.1 408", b"")


def test_a_steady_body_arrives(address):
    with connect(address) as connection:
        connection.sendall(post(2000))
        for _ in range(20):
            connection.sendall(b"x" * 100)
            time.sleep(0.03)
        assert read_reply(connection).startswith(b"2")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"x" * 3000,
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 21 + b"\r\n",
    ],
)
def test_long_heads_are_answered_with_431(address, head):
    with connect(address) as connection:
        connection.sendall(head)
        assert read_all(connection).startswith(b"HTTP/1.1 431")


def test_a_body_in_chunks_ends_where_they_say_whatever_length_is_claimed(address):
    both = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(address) as connection:
        connection.sendall(both + b"5\r\nhello\r\n0\r\n\r\n")
        assert read_reply(connection) == b"5"
        connection.sendall(post(2) + b"ab")
        assert read_reply(connection) == b"2"
    two = post(5).replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n")
    with connect(address) as connection:
        connection.sendall(two + b"hello")
        assert read_all(connection).startswith(b"HTTP/1.1 400")


def test_what_is_no_http_is_answered_with_400(address):
    with connect(address) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("size", [8 << 20, 60_000])
def test_a_client_that_does_not_read_is_closed(address, connections, size):
    """Both a reply that is still being written and one that only waits in the buffers."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT_S)
        connection.connect(address)
        connection.sendall(post(0, f"/{size}"))
        wait_for(lambda: connections.num_open == 1)
        wait_for(lambda: connections.num_open == 0)
        assert len(read_all(connection)) < size


def test_a_client_that_reads_gets_everything(address):
    with connect(address) as connection:
        connection.sendall(post(0, f"/{8 << 20}"))
        assert len(read_all(connection)) > 8 << 20


def test_more_connections_than_an_address_may_have_are_closed_at_once(address, connections):
    wait_for(lambda: connections.num_open == 0)
    first = [connect(address, "127.0.0.9") for _ in range(6)]
    wait_for(lambda: connections.num_open == 6)
    with connect(address, "127.0.0.9") as refused:
        assert read_all(refused) == b""
    with connect(address, "127.0.1.9") as other:
        other.sendall(post(1) + b"x")
        assert read_reply(other) == b"1"
    for connection in first:
        connection.close()
    wait_for(lambda: connections.num_open == 0)


def test_nothing_stays_of_many_connections(address, connections):
    async def visit(number: int) -> None:
        local = (f"127.0.{number}.1", 0)
        reader, writer = await asyncio.open_connection(*address, local_addr=local)
        if number % 3:
            writer.write(post(5) + b"hello"[: number % 5 + 1])
        if number % 2:
            await reader.read()
        writer.close()

    async def main() -> None:
        await asyncio.gather(*(visit(number) for number in range(200)))

    asyncio.run(main())
    wait_for(lambda: connections.num_open == 0)


def wait_for(condition) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
