"""The settings of the service: `shoestring serve --config FILE`, each of them also by `--set`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoestring.errors import ConfigError
from shoestring.serve.accounts.mail import MailConfig
from shoestring.serve.accounts.oidc import OidcConfig
from shoestring.serve.admission.admission import Limits
from shoestring.serve.dialects.deepseek import Era
from shoestring.serve.gate.gate import GateSettings
from shoestring.serve.ledger.stripe import StripeConfig


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Settings of `shoestring serve` beside its models and its address."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names of models: {"gpt-4" = "mini"}."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """LoRA adapters of the first model, each a model with a name of its own: {"sql" = "runs/sql/adapter"}."""
    translator: str | None = None
    """The model that translates, at /v2/translate and on the page; None is the first one."""
    memory: str | None = None
    """Memory for all models of this process together, such as 8GiB; models beyond it are loaded when they are
    asked for, in the place of those that are not in use. None is what the machine has free."""
    runs: str = "runs"
    """Folder of the training runs that an admin sees; without accounts, the one person of this machine."""
    max_num_seqs: int = 16
    """Replies that a model of this process writes at the same time; others wait."""
    watts: float | None = None
    """Power of the machine, for the energy of answers where it cannot be measured."""
    tls_cert: str | None = None
    """Certificate chain, a PEM file; with it the service speaks HTTPS. SIGHUP reads it again."""
    tls_key: str | None = None
    """Private key of the certificate, a PEM file."""

    accounts: bool = False
    """Ask every caller for an API key or a session. An address beyond this machine always does."""
    url: str = ""
    """Address by which people reach the service, for links; without it, the one it listens on."""
    data: str = ""
    """Folder of the service's secret and database; without it, a folder of the user's data."""
    database: str = field(default="", repr=False)
    """URL of a database, such as postgresql://user@host/name; without it, a SQLite file in `data`."""
    chats: bool = True
    """Keep people's chats; else they stay in their browsers."""
    prices: str = ""
    """A price list: a TOML file, or the name of one that comes along. Without it everything is free."""
    stripe: StripeConfig = field(default_factory=StripeConfig)
    """Payments by Stripe."""
    mail: MailConfig = field(default_factory=MailConfig)
    limits: Limits = field(default_factory=Limits)
    """Limits of everyone; an account or a key may have its own."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8."""
    gate: GateSettings = field(default_factory=GateSettings)
    """The rules of registration."""
    oidc: OidcConfig = field(default_factory=OidcConfig)
    """A provider of OpenID Connect by whom people may sign in."""
    deepseek_era: Era = Era.ANY
    """The time whose rules hold on DeepSeek's paths."""

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1:
            raise ConfigError(f"max_num_seqs = {self.max_num_seqs} must be at least 1")
        if self.watts is not None and not 0.0 < self.watts < math.inf:
            raise ConfigError(f"watts = {self.watts} is not a number over 0; leave it out if unknown")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key go together: name both files, or neither")


def check_aliases(aliases: Mapping[str, str], models: Mapping[str, object]) -> None:
    """Raise ConfigError for an alias of a model that is not served, or that has the name of one."""
    for alias, model in aliases.items():
        if alias in models:
            raise ConfigError(f"aliases: {alias!r} is the name of a model already")
        if model not in models:
            raise ConfigError(f"aliases: {alias} = {model!r} is not served; there are {', '.join(models)}")
