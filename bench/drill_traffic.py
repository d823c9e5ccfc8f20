"""Users and attackers of the drill, on raw sockets: what they cost is taken from the server's machine."""

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

NUM_USERS, NUM_OWNERS, NUM_SLOW = 16, 24, 1000
NUM_NETWORKS, ADDRESSES_PER_NETWORK = 1000, 4
USER_RATE, OWNER_EVERY_S, TRAVELLER_EVERY_S = 5.0, 2.0, 3.0
FLOOD_RATE, SIGN_UP_RATE, PASSWORD_RATE = 600.0, 100.0, 100.0
RATES = {
    "users": NUM_USERS,
    "owners": NUM_OWNERS,
    "user_rate": USER_RATE,
    "flood": FLOOD_RATE,
    "sign_ups": SIGN_UP_RATE,
    "passwords": PASSWORD_RATE,
    "slow": NUM_SLOW,
    "networks": NUM_NETWORKS,
    "addresses": NUM_NETWORKS * ADDRESSES_PER_NETWORK,
}
PASSWORD = "a long drill passphrase"
RESET = struct.pack("ii", 1, 0)
COOKIE = re.compile("set-cookie: (\\w+)=([^;]*)", re.IGNORECASE)
FIRST_TOKEN = re.compile(rb'"(?:reasoning_)?content": ?"[^"]')


@dataclass
class Result:
    """The observations of one run; times in seconds since its start."""

    replies: list[dict] = field(default_factory=list)
    """Requests of users: time, first token after, outcome."""
    travellers: list[dict] = field(default_factory=list)
    """The same of users at addresses that the service has never seen, with up to four tries."""
    sign_ins: list[dict] = field(default_factory=list)
    """Sign-ins of owners: time, tries, outcome."""
    states: list[dict] = field(default_factory=list)
    """Registration by second, and the server's CPU time."""
    attack: dict = field(default_factory=dict)
    """Outcomes of the attack by kind and second."""
    attack_begin_s: float = 0.0
    attack_end_s: float = 0.0


@dataclass
class Answer:
    """The reply to a request, as far as it came."""

    outcome: str = "refused"
    """The status; `refused` for a connection that was closed without one, `timeout`, or `broken`."""
    first_s: float | None = None
    head: bytes = b""
    body: bytes = b""


async def ask(
    port: int,
    source: str,
    method: str,
    path: str,
    fields: dict | None = None,
    *,
    headers: str = "",
    timeout_s: float = 30.0,
) -> Answer:
    """Send a request on a connection of its own from an address, and read the reply to its end."""
    body = json.dumps(fields).encode() if fields is not None else b""
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n{headers}{kind}\r\n"
    answer, begin_s = Answer(), time.monotonic()
    connection = socket.socket()
    try:
        async with asyncio.timeout(timeout_s):
            await exchange(connection, (source, port), head.encode() + body, answer, begin_s)
    except TimeoutError:
        answer.outcome = "timeout"
    except OSError:
        answer.outcome = "broken" if answer.head else "refused"
    finally:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    return answer


async def exchange(
    connection: socket.socket, place: tuple[str, int], data: bytes, answer: Answer, begin_s: float
) -> None:
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    connection.bind((place[0], 0))
    await loop.sock_connect(connection, ("127.0.0.1", place[1]))
    await loop.sock_sendall(connection, data)
    received = b""
    while part := await loop.sock_recv(connection, 65536):
        received += part
        if answer.first_s is None and FIRST_TOKEN.search(received):
            answer.first_s = time.monotonic() - begin_s
    answer.head, _, answer.body = received.partition(b"\r\n\r\n")
    answer.outcome = answer.head[9:12].decode() or "refused"


async def until_answered(act, *arguments) -> Answer:
    """The answer of an act, which is tried until it is 200."""
    while (answer := await act(*arguments)).outcome != "200":
        await asyncio.sleep(0.5)
    return answer


class Users:
    """Users with keys, and owners of accounts; each has an address of its own."""

    def __init__(self, port: int, people: dict, result: Result, chance: random.Random) -> None:
        self.start_s = time.monotonic()
        self._port, self._people, self._result, self._chance = port, people, result, chance
        self._devices: dict[int, str] = {}

    def work(self, end_s: float) -> list:
        """Run until a time."""
        return [self._every(end_s, *each) for each in (
            (1 / USER_RATE, self._complete),
            (OWNER_EVERY_S, self._own),
            (TRAVELLER_EVERY_S, self._travel),
        )]  # fmt: skip

    async def warm_up(self) -> None:
        """The days before: users have asked from their addresses, owners have signed in from theirs."""
        for number in range(NUM_USERS):
            await until_answered(self._chat, number, f"127.200.{number}.1")
        for number in range(NUM_OWNERS):
            answer = await until_answered(self._sign_in, number)
            cookies = dict(COOKIE.findall(answer.head.decode()))
            self._devices[number] = cookies["shoestring_device"]
            session = f"Cookie: shoestring_session={cookies['shoestring_session']}\r\n"
            await ask(self._port, f"127.201.{number}.1", "GET", "/account", headers=session)

    async def _every(self, end_s: float, mean_s: float, act) -> None:
        """Act at random moments, without waiting for the last time to end."""
        tasks, number = set(), 0
        while time.monotonic() < end_s:
            await asyncio.sleep(self._chance.expovariate(1 / mean_s))
            tasks.add(asyncio.create_task(act(number)))
            number += 1
        await asyncio.gather(*tasks)

    async def _chat(self, number: int, source: str) -> Answer:
        key = self._people["keys"][number % NUM_USERS]
        fields = {
            "model": "mini",
            "messages": [{"role": "user", "content": "Use 3, 5, 7 to make 22."}],
            "max_tokens": 24,
            "stream": True,
        }
        headers = f"Authorization: Bearer {key}\r\n"
        answer = await ask(self._port, source, "POST", "/v1/chat/completions", fields, headers=headers)
        if answer.outcome == "200" and b"[DONE]" not in answer.body:
            answer.outcome = "broken"
        return answer

    async def _complete(self, number: int) -> None:
        now_s = time.monotonic() - self.start_s
        answer = await self._chat(number, f"127.200.{number % NUM_USERS}.1")
        self._result.replies.append({"time_s": now_s, "first_s": answer.first_s, "outcome": answer.outcome})

    async def _travel(self, number: int) -> None:
        now_s, tries = time.monotonic() - self.start_s, 0
        source = f"127.202.{number // 200}.{number % 200 + 1}"
        while tries < 4:
            tries += 1
            answer = await self._chat(number, source)
            if answer.outcome == "200":
                break
            await asyncio.sleep(0.5 * 2**tries * (0.5 + self._chance.random()))  # as clients do
        row = {"time_s": now_s, "first_s": answer.first_s, "outcome": answer.outcome, "tries": tries}
        self._result.travellers.append(row)

    async def _sign_in(self, number: int) -> Answer:
        fields = {"email": self._people["emails"][number], "password": PASSWORD}
        device = self._devices.get(number)
        headers = f"Cookie: shoestring_device={device}\r\n" if device else ""
        source = f"127.201.{number}.1"
        return await ask(self._port, source, "POST", "/auth/sign-in", fields, headers=headers)

    async def _own(self, number: int) -> None:
        now_s, tries = time.monotonic() - self.start_s, 0
        while tries < 3:
            tries += 1
            answer = await self._sign_in(number % NUM_OWNERS)
            if answer.outcome == "200":
                break
            await asyncio.sleep(2)
        self._result.sign_ins.append({"time_s": now_s, "tries": tries, "outcome": answer.outcome})


def attack_process(port: int, emails: list[str], seconds: float, seed: int, queue) -> None:
    """The attackers, in a process of their own."""
    outcomes = asyncio.run(Attack(port, emails, random.Random(seed + 1)).run(seconds, queue))
    queue.put((outcomes, time.monotonic()))


class Attack:
    """Attackers at thousands of addresses."""

    def __init__(self, port: int, emails: list[str], chance: random.Random) -> None:
        self._port, self._emails, self._chance = port, emails, chance
        self._outcomes: dict[str, dict[int, Counter]] = {}
        networks = [f"127.{number // 250 + 1}.{number % 250}" for number in range(NUM_NETWORKS)]
        self._addresses = [f"{n}.{host + 1}" for n in networks for host in range(ADDRESSES_PER_NETWORK)]

    async def run(self, seconds: float, queue) -> dict:
        begin_s = time.monotonic()
        queue.put(begin_s)
        kinds = {"flood": FLOOD_RATE, "sign-up": SIGN_UP_RATE, "password": PASSWORD_RATE}
        work = [self._keep_on(kind, rate, begin_s, begin_s + seconds) for kind, rate in kinds.items()]
        work += [self._hold(number, begin_s, begin_s + seconds) for number in range(NUM_SLOW)]
        await asyncio.gather(*work)
        return {kind: {s: dict(row) for s, row in rows.items()} for kind, rows in self._outcomes.items()}

    async def _keep_on(self, kind: str, rate: float, begin_s: float, end_s: float) -> None:
        """Send requests at a rate, without waiting for replies."""
        tasks: set[asyncio.Task] = set()
        num_sent = 0
        while (now_s := time.monotonic()) < end_s:
            for _ in range(num_sent, int((now_s - begin_s) * rate)):
                num_sent += 1
                task = asyncio.create_task(self._send(kind, int(now_s - begin_s)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()

    async def _send(self, kind: str, second: int) -> None:
        path, fields, headers = self._request(kind)
        source = self._chance.choice(self._addresses)
        answer = await ask(self._port, source, "POST", path, fields, headers=headers, timeout_s=10)
        self._count(kind, second, answer.outcome)

    def _request(self, kind: str) -> tuple[str, dict, str]:
        token = self._chance.getrandbits(128).to_bytes(16, "big").hex()
        if kind == "sign-up":
            return "/auth/sign-up", {"email": f"{token[:12]}@example.net", "password": token[12:]}, ""
        if kind == "password":
            return "/auth/sign-in", {"email": self._chance.choice(self._emails), "password": token}, ""
        headers = f"Authorization: Bearer ss-{token[:12]}-{token}0000000000000000\r\n"
        message = {"role": "user", "content": token}
        fields = {"model": "mini", "messages": [message], "max_tokens": 400}
        return "/v1/chat/completions", fields, headers if self._chance.random() < 0.5 else ""

    async def _hold(self, number: int, begin_s: float, end_s: float) -> None:
        """Hold a connection with a request that never ends; when it is closed, come again."""
        loop = asyncio.get_running_loop()
        source = self._addresses[number * 3 % len(self._addresses)]
        await asyncio.sleep(self._chance.random() * 2)
        while time.monotonic() < end_s:
            with socket.socket() as connection:
                connection.setblocking(False)
                connection.bind((source, 0))
                try:
                    await loop.sock_connect(connection, ("127.0.0.1", self._port))
                    await loop.sock_sendall(connection, b"POST /v1/messages HTTP/1.1\r\nX: ")
                    while time.monotonic() < end_s:
                        await asyncio.sleep(min(2, max(end_s - time.monotonic(), 0)))
                        await loop.sock_sendall(connection, b"x")
                except OSError:
                    self._count("slow", int(time.monotonic() - begin_s), "closed")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await asyncio.sleep(1 + self._chance.random())

    def _count(self, kind: str, second: int, outcome: str) -> None:
        self._outcomes.setdefault(kind, {}).setdefault(second, Counter())[outcome] += 1
