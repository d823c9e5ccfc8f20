"""Rates in the headers of replies, under OpenAI's and Anthropic's names."""

from datetime import UTC, datetime

from shoestring.serve.admission.buckets import Level

Headers = list[tuple[bytes, bytes]]


def rate_headers(path: str, levels: dict[str, Level], time_s: float) -> Headers:
    """Headers for the levels of `requests` and `tokens`, in the dialect of the path; `time_s` since 1970."""
    if path.removeprefix("/anthropic").startswith("/v1/messages"):
        return [header for unit, level in levels.items() for header in _anthropic(unit, level, time_s)]
    return [header for unit, level in levels.items() for header in _openai(unit, level)]


def _openai(unit: str, level: Level) -> Headers:
    values = {
        "limit": str(level.limit),
        "remaining": str(level.remaining),
        "reset": _duration(level.full_after_s),
    }
    return [(f"x-ratelimit-{name}-{unit}".encode(), value.encode()) for name, value in values.items()]


def _anthropic(unit: str, level: Level, time_s: float) -> Headers:
    reset = datetime.fromtimestamp(time_s + level.full_after_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {"limit": str(level.limit), "remaining": str(level.remaining), "reset": reset}
    return [(f"anthropic-ratelimit-{unit}-{name}".encode(), value.encode()) for name, value in values.items()]


def _duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: 120ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:.0f}s" if minutes else f"{rest:g}s"
