"""An attack like that of January 2025 on the service, beside paying users: with its defences, then without.

    python bench/drill.py [--short] [--seed 0] [--folder FOLDER] [--json FILE] [--page docs/drill.md]

Starts `shoestring serve` with accounts and mini, and lets thousands of loopback addresses (127.0.0.0/8) send
a flood of requests without a valid key, of sign-ups and of wrong passwords, and hold 1,000 connections that
send a byte now and then. Users with keys ask for completions all the while, and owners of accounts whose
passwords are tried sign in. Attackers and users run on the machine of the server: what the attack costs is
taken from it too. Exit code 3 when a target is missed, or when the same attack does no harm without defences.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from drill_traffic import NUM_OWNERS, NUM_USERS, PASSWORD, RATES, Result, Users, ask, attack_process

from shoestring.serve.accounts.accounts import Accounts
from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.accounts.secret import read_secret
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.migrate import migrate

ROOT = Path(__file__).resolve().parents[1]
RUN = "import sys; from shoestring.cli.main import main; sys.exit(main())"
RELAX_S = 15.0
AFTERMATH_S = 10.0
"""Seconds after the attack whose requests count as neither attacked nor calm."""
MINUTE_S = 60
"""The longest span of the gate's signals."""
DEFENCES = {"gate.relax_s": RELAX_S}
NO_DEFENCES = {
    **{f"limits.receipt.{name}": 10**6 for name in ("head_s", "body_s", "slow_s", "reading_s")},
    **{f"limits.connections.{name}": 10**6 for name in ("total", "strangers", "per_address", "per_network")},
    **{f"limits.connections.{name}": 10**6 for name in ("new_per_s", "again_per_s", "new_per_network_s")},
    **{f"limits.{name}": 10**6 for name in ("stranger_per_minute", "network_per_minute", "strangers_per_s")},
    **{f"gate.thresholds.{name}": 10**9 for name in ("sign_ups_burst", "sign_ups_minute", "failures_burst")},
    **{f"gate.thresholds.{name}": 10**9 for name in ("refusals_burst", "networks_burst")},
    **{f"gate.thresholds.{name}": 10**9 for name in ("new_accounts_minute", "paying_wait_s")},
}


@dataclass(frozen=True)
class Plan:
    """Seconds of each part."""

    calm_s: float
    attack_s: float
    after_s: float


FULL, SHORT = Plan(30, 70, 80), Plan(10, 20, 80)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a minute for each run, for development")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="of the service's data; /dev/shm on a machine whose disk others use"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown page, with its picture beside it")
    arguments = parser.parse_args()
    plan = SHORT if arguments.short else FULL
    runs = {}
    for name, settings in (("defended", DEFENCES), ("undefended", NO_DEFENCES)):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            runs[name] = run(Path(folder), settings, plan, arguments.seed)
        print(name, json.dumps(figures(runs[name]), indent=2), flush=True)
    report = {name: {"figures": figures(result), **rounded(asdict(result))} for name, result in runs.items()}
    missed = misses(report["defended"]["figures"])
    harm = misses(report["undefended"]["figures"])
    is_passed = not missed and bool({"success", "slow first tokens"} & set(harm))
    summary = {"verdict": "PASS" if is_passed else "FAIL", "missed": missed, "without_defences": harm}
    in_memory = str(arguments.folder or "").startswith("/dev/shm")
    report = {
        "seed": arguments.seed,
        "in_memory": in_memory,
        "plan": asdict(plan),
        "cores": os.cpu_count(),
        **summary,
        **report,
    }
    print(json.dumps(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(report) + "\n")
    if arguments.page:
        from drill_page import write_page

        write_page(report, arguments.page, {**RATES, "attack_s": plan.attack_s}, RELAX_S)
    return 0 if is_passed else 3


def rounded(value):
    """The same with numbers of three decimals: what a picture needs."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def figures(result: Result) -> dict:
    """The figures of a run that have targets, and some others."""
    calm_again_s = result.attack_end_s - result.attack_begin_s + AFTERMATH_S
    calm = [r for r in result.replies if not -1 < r["time_s"] - result.attack_begin_s < calm_again_s]
    attacked = [r for r in result.replies if result.attack_begin_s <= r["time_s"] < result.attack_end_s]
    reaction = [s["time_s"] for s in result.states if s["state"] != "open"]
    after = [s["time_s"] for s in result.states if s["time_s"] > result.attack_end_s and s["state"] == "open"]
    statuses: Counter[str] = Counter()
    for row in (row for rows in result.attack.values() for row in rows.values()):
        statuses.update(row)
    others = [*result.replies, *result.travellers, *result.sign_ins]
    errors = statuses["500"] + sum(r["outcome"] == "500" for r in others)
    during = [r for r in result.travellers if result.attack_begin_s <= r["time_s"] < result.attack_end_s]
    return {
        "requests_calm": len(calm),
        "requests_attacked": len(attacked),
        "success": share(attacked),
        "first_token_calm_p50_s": quantile(calm, 0.5),
        "first_token_calm_p99_s": quantile(calm, 0.99),
        "first_token_attacked_p50_s": quantile(attacked, 0.5),
        "first_token_attacked_p99_s": quantile(attacked, 0.99),
        "errors_500": errors,
        "gate_reaction_s": min(reaction) - result.attack_begin_s if reaction else None,
        "gate_open_again_s": min(after) - result.attack_end_s if after and reaction else None,
        "owners_locked_out": sum(r["outcome"] != "200" for r in result.sign_ins),
        "sign_ins_of_owners": len(result.sign_ins),
        "newcomers_served": share(during),
        "attack_requests": sum(statuses.values()),
        "attack_outcomes": dict(statuses.most_common()),
        "accounts_opened_by_attack": statuses["201"],
    }


def misses(figures: dict) -> list[str]:
    """Names of the targets that a run has missed."""
    calm, attacked = figures["first_token_calm_p99_s"], figures["first_token_attacked_p99_s"]
    checks = {
        "success": figures["success"] >= 0.999,
        "slow first tokens": attacked <= 2 * calm,
        "errors": figures["errors_500"] == 0,
        "slow gate": figures["gate_reaction_s"] is not None and 0 <= figures["gate_reaction_s"] <= 5,
        "gate not open again": (figures["gate_open_again_s"] or math.inf) <= MINUTE_S + RELAX_S + 10,
        "locked out": figures["owners_locked_out"] == 0 and figures["sign_ins_of_owners"] > 0,
    }
    return [name for name, is_good in checks.items() if not is_good]


def share(rows: list[dict]) -> float:
    return sum(row["outcome"] == "200" for row in rows) / max(len(rows), 1)


def quantile(rows: list[dict], q: float) -> float:
    """A quantile of the times to the first token; a request without one counts as for ever."""
    times = sorted(row["first_s"] if row["first_s"] is not None else math.inf for row in rows)
    return round(times[min(math.ceil(q * len(times)), len(times)) - 1], 4) if times else math.inf


def run(folder: Path, settings: dict, plan: Plan, seed: int) -> Result:
    """One run: a server of its own, users, and attackers in another process."""
    people = asyncio.run(prepare(folder))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = {"accounts": True, "data": str(folder), **settings}
    options = [f"--set={name}={json.dumps(value)}" for name, value in values.items()]
    command = [sys.executable, "-c", RUN, "serve", "mini", "--port", str(port), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        result = asyncio.run(observe(server, port, people, plan, seed))
    finally:
        server.terminate()
        server.wait(60)
    if "Traceback" in log.read_text():
        print(log.read_text()[-3000:])
    return result


async def prepare(folder: Path) -> dict:
    """Accounts of users with keys, and of owners."""
    url = f"sqlite:///{folder / 'service.db'}"
    migrate(url)
    accounts = Accounts(Database(url), read_secret(folder / "secret"))
    people: dict[str, list] = {"keys": [], "emails": []}
    for number in range(NUM_USERS):
        account = await accounts.sign_in.sign_up(f"user{number}@example.com", PASSWORD)
        people["keys"].append(await accounts.add_key(account.id, KeySettings(name="drill")))
    for number in range(NUM_OWNERS):
        people["emails"].append(f"owner{number}@example.com")
        await accounts.sign_in.sign_up(people["emails"][-1], PASSWORD)
    await accounts.database.close()
    accounts.sign_in.passwords.close()
    return people


async def observe(server: subprocess.Popen, port: int, people: dict, plan: Plan, seed: int) -> Result:
    """Let users ask for the whole time, and attackers come in the middle."""
    await wait_for_server(server, port)
    result = Result()
    users = Users(port, people, result, random.Random(seed))
    await users.warm_up()
    start_s = users.start_s = time.monotonic()
    end_s = start_s + plan.calm_s + plan.attack_s + plan.after_s
    tasks = [asyncio.create_task(work) for work in users.work(end_s)]
    tasks.append(asyncio.create_task(watch(server.pid, port, result, start_s, end_s)))
    await asyncio.sleep(start_s + plan.calm_s - time.monotonic())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (port, people["emails"], plan.attack_s, seed, queue)
    attackers = context.Process(target=attack_process, args=arguments)
    attackers.start()
    begin_s = await asyncio.to_thread(queue.get)  # the process takes a second to start
    result.attack_begin_s = begin_s - start_s
    result.attack, finish_s = await asyncio.to_thread(queue.get)
    result.attack_end_s = finish_s - start_s
    attackers.join()
    await asyncio.gather(*tasks)
    return result


async def wait_for_server(server: subprocess.Popen, port: int) -> None:
    while server.poll() is None:
        if (await ask(port, "127.0.0.1", "GET", "/ready", timeout_s=1)).outcome == "200":
            return
        await asyncio.sleep(0.1)
    raise SystemExit("the server did not start")


async def watch(pid: int, port: int, result: Result, start_s: float, end_s: float) -> None:
    """Look at the status every half second, and at the server's CPU time."""
    while (now_s := time.monotonic()) < end_s:
        answer = await ask(port, "127.200.0.1", "GET", "/status", timeout_s=5)
        registration = json.loads(answer.body)["registration"] if answer.outcome == "200" else None
        ticks = sum(int(text) for text in Path(f"/proc/{pid}/stat").read_text().split()[13:15])
        row = {"time_s": now_s - start_s, "cpu_s": ticks / os.sysconf("SC_CLK_TCK")}
        if registration is not None:
            result.states.append({**row, "state": registration["state"]})
        await asyncio.sleep(max(0.0, now_s + 0.5 - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
