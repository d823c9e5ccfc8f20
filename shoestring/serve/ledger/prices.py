"""Price lists: what a million tokens of a model cost, at which hours."""

import tomllib
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shoestring.errors import ConfigError
from shoestring.serve.backends.reply import Usage

NANOS = 10**9
"""Nanos in one unit of the currency."""
MILLION = 10**6
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def nanos(amount: str) -> int:
    """A decimal amount of the currency in nanos. Raises ValueError for a part of a nano."""
    try:
        value = Decimal(amount) * NANOS
    except InvalidOperation:
        raise ValueError(f"{amount!r} is no amount; write it like 0.27") from None
    if not value.is_finite() or value != int(value) or abs(value) >= 2**62:
        raise ValueError(f"{amount!r} is no whole number of billionths")
    return int(value)


def decimal(amount: int) -> str:
    """Nanos as a decimal amount, with two places at least."""
    sign, whole, part = "-" if amount < 0 else "", abs(amount) // NANOS, abs(amount) % NANOS
    return f"{sign}{whole}.{f'{part:09}'.rstrip('0'):0<2}"


Nanos = Annotated[int, BeforeValidator(lambda amount: nanos(str(amount))), Field(ge=0, le=2**53)]
"""An amount that a file writes as a decimal number, or as text."""


class Price(BaseModel):
    """Prices of a million tokens, in nanos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache_hit: Nanos = 0
    cache_miss: Nanos = 0
    output: Nanos = 0

    def charge(self, usage: Usage) -> int:
        """The price of a request in nanos, rounded up once."""
        num_missed = usage.prompt_tokens - usage.cached_tokens
        parts = usage.cached_tokens * self.cache_hit + num_missed * self.cache_miss
        return -(-(parts + usage.completion_tokens * self.output) // MILLION)

    def most(self, prompt_tokens: int, max_tokens: int) -> int:
        """The most that a request can cost, in nanos."""
        dearest = max(self.cache_hit, self.cache_miss)
        return -(-(prompt_tokens * dearest + max_tokens * self.output) // MILLION)

    def times(self, factor: Decimal) -> "Price":
        """The price at an hour with a factor; a fraction of a nano is rounded up."""
        return Price.model_construct(**{name: ceil(value * factor) for name, value in self})


class Hours(BaseModel):
    """Hours of the day, in UTC, at which a price is multiplied."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: time = Field(alias="from")
    end: time = Field(alias="to")
    """At or before `start`: of the next day."""
    factor: Decimal = Field(ge=0, le=1000)
    days: tuple[Day, ...] = DAYS
    """Days of the week on which they begin."""

    def contain(self, moment: datetime) -> bool:
        """Return whether a moment lies in these hours."""
        now, today = moment.time(), DAYS[moment.weekday()]
        if self.start < self.end:
            return self.start <= now < self.end and today in self.days
        yesterday = DAYS[moment.weekday() - 1]
        return (now >= self.start and today in self.days) or (now < self.end and yesterday in self.days)


class ModelPrice(Price):
    """The price of one model, with the hours at which it differs; the first that fit count."""

    hours: tuple[Hours, ...] = ()

    def at(self, time_s: float) -> Price:
        """The price at a time."""
        moment = datetime.fromtimestamp(time_s, UTC)
        factor = next((hours.factor for hours in self.hours if hours.contain(moment)), Decimal(1))
        return Price.model_construct(**self.model_dump(exclude={"hours"})).times(factor)


class PriceList(BaseModel):
    """Prices by model; `*` is the price of every other one. Without it others are free."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    models: dict[str, ModelPrice] = {}

    def at(self, model: str, time_s: float) -> Price:
        """The price of a model at a time."""
        price = self.models.get(model) or self.models.get("*")
        return price.at(time_s) if price else Price()

    @property
    def is_free(self) -> bool:
        """Whether every model is free."""
        return not any(price.most(MILLION, MILLION) for price in self.models.values())


def preset_names() -> list[str]:
    """Names of the price lists that come with the package."""
    return sorted(
        path.name.removesuffix(".toml") for path in _presets().iterdir() if path.name.endswith(".toml")
    )


def read_prices(name: str) -> PriceList:
    """The price list of a TOML file, or of a preset by its name. Raises ConfigError."""
    preset = _presets() / f"{name}.toml"
    try:
        content = preset.read_bytes() if name in preset_names() else Path(name).read_bytes()
        return PriceList.model_validate(tomllib.loads(content.decode()))
    except OSError as error:
        presets = ", ".join(preset_names())
        raise ConfigError(f"prices {name}: {error.strerror}; it is a file, or one of {presets}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"prices {name} is no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"prices {name}, {place}: {first['msg']}") from None


def _presets() -> Traversable:
    return files("shoestring.serve.ledger") / "presets"
