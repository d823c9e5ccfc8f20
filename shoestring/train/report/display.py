"""The display of a training run on stderr: a live panel on a terminal, plain lines elsewhere.

A title from a recipe or a text from a model may be hostile, so control characters never reach the terminal
and nothing is read as markup.
"""

import math
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL_S = 10.0
_LIVE_INTERVAL_S = 0.25
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*%#"
_MAX_BARS = 64
_CELL_WIDTH = 34
_MAX_WIDTH = 112


class Display:
    """A context manager that shows the figures of `update`; every key is optional and the last value stays.

    `total` is the length of the run, in tokens or steps.
    Keys: step, tokens, loss, bits_per_byte, heldout_bits_per_byte, tokens_per_s, peak_share (fraction of the
    machine's measured peak), expert_load (shares that sum to 1), max_violation (busiest expert's load over
    the mean, minus 1), lr, batch (sequences a step), grad_norm, phase, eta_s (else estimated from speed),
    sharing (threads that are left beside other programs, empty without any).
    Of reinforcement learning: reward, accuracy (share of right answers), solved_by_any (of questions), kl,
    answer_tokens, truncated, entropy, clip_share, gap (trainer's and engine's log-probabilities),
    samples_per_s, eval_accuracy.
    Of preferences: rewards/accuracies (pairs in the right order, a share), rewards/margins, held-out ones.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        unit: Literal["tokens", "steps"] = "tokens",
        quiet: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = _clean(title)
        self._total, self._unit = max(int(total), 1), unit
        self._quiet = quiet
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._values: dict[str, Any] = {}
        self._shown_values: dict[str, Any] = {}
        self._shown_at = -math.inf
        is_live = self._console.is_terminal and not self._console.is_dumb_terminal and not quiet
        # Drawn by `update` alone: no second thread beside the one that trains.
        self._live = Live(console=self._console, auto_refresh=False) if is_live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        else:
            self.say(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._values:
            self._show()
        if self._live:
            self._live.stop()

    def update(self, stats: Mapping[str, Any]) -> None:
        """Take new figures; they are drawn at most four times a second, as plain lines every ten seconds."""
        self._values.update({name: value for name, value in stats.items() if value is not None})
        interval = _LIVE_INTERVAL_S if self._live else PLAIN_INTERVAL_S
        is_due = self._clock() - self._shown_at >= interval
        if is_due or stats.get("heldout_bits_per_byte") is not None:
            self._show()

    def say(self, text: str) -> None:
        """Print a line, above the live panel or among the plain lines."""
        if not self._quiet:
            self._console.print(Text(_clean(text)), soft_wrap=self._live is None)

    def _show(self) -> None:
        if self._live:
            self._live.update(self._panel(), refresh=True)
        elif self._values != self._shown_values:
            self.say(self._line())
        self._shown_at, self._shown_values = self._clock(), dict(self._values)

    def _line(self) -> str:
        cells = [f"{name} {value}" for name, value in _figures(self._values, self._total, self._unit)]
        return " | ".join(cells)

    def _panel(self) -> RenderableType:
        width = max(min(self._console.width, _MAX_WIDTH) - 4, 1)
        figures = _figures(self._values, self._total, self._unit)
        columns = max(1, min(width // _CELL_WIDTH, 3))
        grid = Table.grid(padding=(0, 2), expand=True)
        for _ in range(columns):
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(justify="right", no_wrap=True, ratio=1)
        rows = -(-len(figures) // columns)
        for row in range(rows):
            cells = [
                figures[row + column * rows]
                for column in range(columns)
                if row + column * rows < len(figures)
            ]
            grid.add_row(*(Text(text) for pair in cells for text in pair))
        key = "tokens" if self._unit == "tokens" else "step"
        position = min(_number(self._values.get(key)) or 0, self._total)
        bar = Table.grid(expand=True)  # a bar on its own does not end its line
        bar.add_row(ProgressBar(total=self._total, completed=position))
        parts: list[RenderableType] = [bar, grid]
        load = self._values.get("expert_load")
        if load is not None and len(load):
            parts.append(Text("experts " + self._load_bars(load, width - len("experts ")), no_wrap=True))
        return Panel(Group(*parts), title=Text(self._title), title_align="left", width=width + 4)

    def _load_bars(self, load: Sequence[float], width: int) -> str:
        """One bar for each expert, neighbors averaged if there are too many; half height is the mean load."""
        bars = _ASCII_BARS if self._console.options.ascii_only else _BARS
        shares = [max(_number(share) or 0.0, 0.0) for share in load]
        mean = sum(shares) / len(shares) or 1.0
        range_text = f" {min(shares) / mean:.2f}-{max(shares) / mean:.2f}x mean"
        room = max(1, min(_MAX_BARS, width - len(range_text)))
        size = -(-len(shares) // room)
        groups = [shares[start : start + size] for start in range(0, len(shares), size)]
        heights = [sum(group) / len(group) / mean for group in groups]
        return "".join(bars[min(int(height * 4), 7)] for height in heights) + range_text


def _figures(values: Mapping[str, Any], total: int, unit: str) -> list[tuple[str, str]]:
    """The (label, text) pairs of the values that there are."""
    tokens, speed = _number(values.get("tokens")), _number(values.get("tokens_per_s"))
    step, eta_s = _number(values.get("step")), _number(values.get("eta_s"))
    if eta_s is None and unit == "tokens" and tokens is not None and speed:
        eta_s = max(total - tokens, 0) / speed
    position = tokens if unit == "tokens" else step
    share = "" if position is None else f"/{_count(total)} {min(position / total, 1.0):.0%}"
    figures = [
        ("step", step is not None and f"{step:,.0f}{share if unit == 'steps' else ''}"),
        ("tokens", tokens is not None and f"{_count(tokens)}{share if unit == 'tokens' else ''}"),
        ("held-out pass@1", _format(values.get("eval_accuracy"), ".1%")),
        ("right", _format(values.get("accuracy"), ".1%")),
        ("solved by any", _format(values.get("solved_by_any"), ".1%")),
        ("reward", _format(values.get("reward"), ".3f")),
        ("right order", _format(values.get("rewards/accuracies"), ".1%")),
        ("held-out right order", _format(values.get("heldout_rewards/accuracies"), ".1%")),
        ("margin", _format(values.get("rewards/margins"), ".3f")),
        ("tokens an answer", _format(values.get("answer_tokens"), ",.0f")),
        ("cut at the limit", _format(values.get("truncated"), ".1%")),
        ("entropy", _format(values.get("entropy"), ".3f")),
        ("KL", _format(values.get("kl") or None, ".2e")),
        ("clipped", _format(values.get("clip_share") or None, ".1%")),
        ("trainer - engine", _format(values.get("gap"), ".1e")),
        ("answers/s", _format(values.get("samples_per_s"), ",.1f")),
        ("loss", _format(values.get("loss"), ".4f")),
        ("bits/byte", _format(values.get("bits_per_byte"), ".4f")),
        ("held-out bits/byte", _format(values.get("heldout_bits_per_byte"), ".4f")),
        ("tokens/s", _format(values.get("tokens_per_s"), ",.0f")),
        ("of measured peak", _format(values.get("peak_share"), ".1%")),
        ("learning rate", _format(values.get("lr"), ".2e")),
        ("batch", _format(values.get("batch"), ",.0f")),
        ("gradient norm", _format(values.get("grad_norm"), ".3g")),
        ("max violation", _format(values.get("max_violation"), ".3f")),
        ("phase", _format(values.get("phase"), "")),
        ("sharing the machine", _format(values.get("sharing"), "")),
        ("ETA", eta_s is not None and _duration(eta_s)),
    ]
    return [(name, text) for name, text in figures if text]


def _format(value: Any, spec: str) -> str:
    if value is None:
        return ""
    number = _number(value)
    return format(number, spec) if spec and number is not None else _clean(str(value))


def _number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(number: float) -> str:
    """1234567 -> '1.23M'."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    """250 -> '4m10s'."""
    whole = round(max(seconds, 0))
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _clean(text: str) -> str:
    """`text` without control characters (escape sequences could rewrite the screen) or lone surrogates."""
    characters = (c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    return "".join(characters).encode("utf-8", "replace").decode()
