"""The page of the drill: what was done, the figures with and without defences, and a picture."""

import math
from pathlib import Path

STATES = ("open", "proof_of_work", "invite", "closed")
GROUPS = {
    "closed at once": ("refused", "closed"),
    "401, 403, 400": ("401", "403", "400"),
    "429, 503": ("429", "503"),
    "no answer in time": ("timeout", "broken"),
    "account opened": ("201",),
}
COLOURS = ("#9db4c0", "#5c8a97", "#e0b060", "#b3362b", "#7b4b94")
DISKS = {
    False: "The database was a SQLite file on disk.",
    True: "The database was a SQLite file in memory (/dev/shm): no other program's disk is in the way.",
}
TEXT = """# The drill: an attack like that of January 2025

In January 2025 a flood of requests and of wrong passwords came at DeepSeek from hundreds to thousands of
addresses, and it closed registration. This page is made by `python bench/drill.py`, which repeats the
pattern in small: a service with accounts and the model mini, {users} users who ask for completions
({user_rate:g} a second), {owners} owners of accounts who sign in, and in the middle, for {attack_s:.0f} s,
from {addresses:,} loopback addresses in {networks:,} networks,

- {flood:g} requests a second without a valid key,
- {sign_ups:g} sign-ups a second,
- {passwords:g} sign-ins a second with wrong passwords to the owners' accounts,
- {slow:,} connections that send one byte every two seconds, and come again when they are closed.

Everything ran on one machine with {cores} cores: users and attackers take from the same processor as the
server, which makes it harder than the same rates from elsewhere.
{disk}
Network floods (reflection and the like) are not part of it: no server can do anything about those, only the
network before it.

![Time to the first token, the attack and the state of registration, with and without defences](drill.png)

| | with defences | without | target |
| --- | --- | --- | --- |
{rows}

The verdict: **{verdict}**. {control}

What the lines mean: a request of a user succeeds when its whole stream arrives. Registration must ask for
proof of work within 5 s and open again: the signals look at a minute, and calm must last {relax:g} s here
(300 s by default). An owner is locked out when three tries with the right password, from a browser that has
signed in before, fail. Newcomers have a key but an address that the service has never seen; in the attack
they are strangers like the attackers until a connection of theirs gets through, and try four times as
clients do: the price of the defence, and the reason for a network that filters in front of a large service.
The defences that were switched off are deadlines of receipt, limits of connections and of strangers, and
the gate; what guards passwords and the rates of accounts stayed.
"""


def write_page(report: dict, path: Path, plan: dict, relax_s: float) -> None:
    """Write the page, and its picture beside it; `plan` has the rates and numbers of the drill."""
    draw(report, path.with_suffix(".png"))
    harm = ", ".join(report["without_defences"])
    control = (
        f"Without defences the same attack misses: {harm}." if harm else "Without defences it does no harm."
    )
    text = TEXT.format(
        **plan,
        disk=DISKS[report["in_memory"]],
        rows=_rows(report),
        verdict=report["verdict"],
        control=control,
        relax=relax_s,
        cores=report["cores"],
    )
    path.write_text(text, encoding="utf-8")


def _rows(report: dict) -> str:
    on, off = report["defended"]["figures"], report["undefended"]["figures"]
    calm, limit = on["first_token_calm_p99_s"], 2 * on["first_token_calm_p99_s"]

    def row(name: str, key: str, form: str, target: str = "") -> str:
        values = [_value(each[key], form) for each in (on, off)]
        return f"| {name} | {values[0]} | {values[1]} | {target} |"

    return "\n".join(
        (
            row("requests of users in the attack", "requests_attacked", "{:,}"),
            row("of them answered", "success", "{:.2%}", "at least 99.9%"),
            row("first token, median, calm", "first_token_calm_p50_s", "{:.3f} s"),
            row("first token, median, in the attack", "first_token_attacked_p50_s", "{:.3f} s"),
            row("first token, 99th percentile, calm", "first_token_calm_p99_s", "{:.3f} s"),
            row(
                "first token, 99th percentile, in the attack",
                "first_token_attacked_p99_s",
                "{:.3f} s",
                f"at most {limit:.3f} s (2 x {calm:.3f})",
            ),
            row("replies with status 500", "errors_500", "{:,}", "0"),
            row("registration asks for work after", "gate_reaction_s", "{:.1f} s", "at most 5 s"),
            row("registration is open again after", "gate_open_again_s", "{:.0f} s", "yes"),
            row("owners who could not sign in", "owners_locked_out", "{:,}", "0"),
            row("of so many who tried", "sign_ins_of_owners", "{:,}"),
            row("newcomers served", "newcomers_served", "{:.0%}"),
            row("accounts opened by the attack", "accounts_opened_by_attack", "{:,}"),
            row("tries of the attackers", "attack_requests", "{:,}"),
        )
    )


def _value(value: float | None, form: str) -> str:
    if value is None:
        return "never"
    return "not within 30 s" if math.isinf(value) else form.format(value)


def draw(report: dict, path: Path) -> None:
    """Three panels for each run: first tokens, the attack by second, registration and the processor."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        3, 2, figsize=(12, 9), sharex=True, sharey="row", gridspec_kw={"height_ratios": [3, 2, 1.4]}
    )
    for column, (name, title) in enumerate((("defended", "with defences"), ("undefended", "without"))):
        run = report[name]
        first, attack, state = axes[:, column]
        first.set_title(title)
        for axis in axes[:, column]:
            axis.axvspan(run["attack_begin_s"], run["attack_end_s"], color="#b3362b", alpha=0.07, lw=0)
            axis.spines[["top", "right"]].set_visible(False)
        _draw_first_tokens(first, run["replies"])
        _draw_attack(attack, run)
        _draw_state(state, run["states"])
        state.set_xlabel("seconds")
    axes[0, 0].set_ylabel("time to the first token, s")
    axes[1, 0].set_ylabel("tries of attackers a second")
    axes[2, 0].set_ylabel("registration")
    axes[0, 0].legend(loc="upper right", frameon=False)
    axes[1, 1].legend(loc="upper right", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _draw_first_tokens(axis, replies: list[dict]) -> None:
    good = [reply for reply in replies if reply["outcome"] == "200" and reply["first_s"]]
    bad = [reply for reply in replies if reply["outcome"] != "200"]
    axis.set_yscale("log")
    axis.set_ylim(0.005, 40)
    axis.plot(
        [r["time_s"] for r in good],
        [r["first_s"] for r in good],
        ".",
        ms=4,
        color="#2e7d4f",
        label="answered",
    )
    axis.plot([r["time_s"] for r in bad], [30] * len(bad), "x", ms=5, color="#b3362b", label="failed")


def _draw_attack(axis, run: dict) -> None:
    """Outcomes of the attackers' tries by the second in which they began."""
    seconds = sorted({int(second) for rows in run["attack"].values() for second in rows})
    stacks = []
    for statuses in GROUPS.values():
        stacks.append(
            [
                sum(
                    _row(rows, second).get(status, 0)
                    for rows in run["attack"].values()
                    for status in statuses
                )
                for second in seconds
            ]
        )
    times = [run["attack_begin_s"] + second for second in seconds]
    axis.stackplot(times, stacks, labels=list(GROUPS), colors=COLOURS, lw=0)


def _row(rows: dict, second: int) -> dict:
    return rows.get(second) or rows.get(str(second)) or {}


def _draw_state(axis, states: list[dict]) -> None:
    times = [row["time_s"] for row in states]
    axis.step(times, [STATES.index(row["state"]) for row in states], where="post", color="#1c1c1a")
    axis.set_yticks(range(len(STATES)), [name.replace("_", " ") for name in STATES], fontsize=8)
    axis.set_ylim(-0.3, 3.3)
