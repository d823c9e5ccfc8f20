"""Prices are exact whole numbers; hours of the day change them; presets are what was published."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import ConfigError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.ledger.prices import (
    DAYS,
    NANOS,
    Price,
    PriceList,
    decimal,
    nanos,
    preset_names,
    read_prices,
)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@given(st.integers(-(10**17), 10**17))
def test_amounts_survive_being_written(amount):
    assert nanos(decimal(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("0.27", 270_000_000), ("1", NANOS), ("1e-9", 1), ("-2.5", -2_500_000_000)]
)
def test_amounts_are_read(text, amount):
    assert nanos(text) == amount


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e-10", "1e30"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="is no"):
        nanos(text)


def test_a_charge_is_rounded_up_once():
    price = Price.model_construct(cache_hit=1, cache_miss=2, output=3)
    usage = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=4)
    assert price.charge(usage) == 1  # (2*1 + 3*2 + 4*3) / 1e6, rounded up
    assert price.charge(Usage()) == 0
    million = Usage(prompt_tokens=2_000_000, cached_tokens=1_000_000, completion_tokens=1_000_000)
    assert price.charge(million) == 6


tokens = st.integers(0, 10**9)


@given(tokens, tokens, tokens, st.tuples(*[st.integers(0, 10**12)] * 3))
def test_a_request_never_costs_more_than_is_held(prompt, cached, completion, amounts):
    price = Price.model_construct(**dict(zip(("cache_hit", "cache_miss", "output"), amounts, strict=True)))
    usage = Usage(prompt_tokens=prompt, cached_tokens=min(cached, prompt), completion_tokens=completion)
    assert 0 <= price.charge(usage) <= price.most(prompt, completion)


@pytest.mark.parametrize(
    ("preset", "model", "time", "prices"),
    [
        ("deepseek-2025-01", "deepseek-chat", "2025-01-20T12:00", ("0.07", "0.27", "1.10")),
        ("deepseek-2025-01", "deepseek-reasoner", "2025-01-20T12:00", ("0.14", "0.55", "2.19")),
        ("deepseek-2025-02", "deepseek-chat", "2025-03-01T16:29", ("0.07", "0.27", "1.10")),
        ("deepseek-2025-02", "deepseek-chat", "2025-03-01T16:30", ("0.035", "0.135", "0.55")),
        ("deepseek-2025-02", "deepseek-reasoner", "2025-03-01T00:29", ("0.035", "0.1375", "0.5475")),
        ("deepseek-2025-02", "deepseek-chat", "2025-03-01T00:30", ("0.07", "0.27", "1.10")),
        ("deepseek-2025-09", "anything", "2025-10-01T00:00", ("0.028", "0.28", "0.42")),
        ("deepseek-2026-10", "deepseek-flash", "2026-11-30T03:59", ("0.006", "0.30", "1.20")),  # a Monday
        ("deepseek-2026-10", "deepseek-flash", "2026-11-30T04:00", ("0.003", "0.15", "0.60")),
        ("deepseek-2026-10", "deepseek-flash", "2026-11-29T03:00", ("0.003", "0.15", "0.60")),  # a Sunday
        ("deepseek-2026-10", "deepseek-v4-pro", "2026-11-30T06:00", ("0.044", "1.32", "3.96")),
    ],
)
def test_presets_are_the_published_prices(preset, model, time, prices):
    price = read_prices(preset).at(model, at(time))
    assert (price.cache_hit, price.cache_miss, price.output) == tuple(nanos(text) for text in prices)


def test_all_presets_can_be_read():
    assert len(preset_names()) >= 4
    assert not any(read_prices(name).is_free for name in preset_names())


def table_rows():
    """The rows of the presets in docs/service.md, as they should be."""
    for preset in preset_names():
        for model, price in read_prices(preset).models.items():
            amounts = [decimal(amount) for amount in (price.cache_hit, price.cache_miss, price.output)]
            spans = [f"x {each.factor} {each.start:%H:%M}-{each.end:%H:%M}" for each in price.hours]
            days = {each.days for each in price.hours} - {DAYS}
            hours = ", ".join(spans) + "".join(f" ({each[0]}-{each[-1]})" for each in days)
            name = "every other" if model == "*" else f"`{model}`"
            yield f"| `{preset}` | {name} | {' | '.join(amounts)} | {hours} |"


def test_the_table_of_presets_is_true():
    page = (Path(__file__).resolve().parents[3] / "docs" / "service.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `deepseek-")]
    assert rows == list(table_rows())


def test_a_model_without_a_price_is_free():
    prices = PriceList.model_validate({"models": {"dear": {"output": "1"}}})
    assert prices.at("other", 0).most(10**9, 10**9) == 0
    assert not prices.is_free
    assert PriceList().is_free


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[models.a]\noutput = "-1"', "models.a.output"),
        ("[models.a]\noutput = 0.1\nother = 1", "models.a.other"),
        ('[models.a]\nhours = [{from = "25:00", to = "1:00", factor = 1}]', "models.a.hours.0.from"),
        ('currency = "dollars"', "currency"),
        ("x = [", "no TOML"),
    ],
)
def test_a_wrong_price_list_is_one_sentence_with_the_place(tmp_path, content, words):
    path = tmp_path / "prices.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_prices(str(path))


def test_a_missing_price_list_names_the_presets():
    with pytest.raises(ConfigError, match="deepseek-2025-01"):
        read_prices("no-such-file")


def test_numbers_of_a_file_are_exact(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text("[models.a]\noutput = 0.1\ncache_miss = 3\n")
    price = read_prices(str(path)).at("a", 0)
    assert (price.output, price.cache_miss) == (NANOS // 10, 3 * NANOS)
