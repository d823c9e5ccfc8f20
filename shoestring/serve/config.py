"""The settings of the service: `shoestring serve --config FILE`, each of them also by `--set`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoestring.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Settings of `shoestring serve` beside its models and its address."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names of models: {"gpt-4" = "mini"}."""
    memory: str | None = None
    """Memory for all models of this process together, such as 8GiB; models beyond it are loaded when they are
    asked for, in the place of those that are not in use. None is what the machine has free."""
    max_num_seqs: int = 16
    """Replies that a model of this process writes at the same time; others wait."""
    tls_cert: str | None = None
    """Certificate chain, a PEM file; with it the service speaks HTTPS. SIGHUP reads it again."""
    tls_key: str | None = None
    """Private key of the certificate, a PEM file."""

    def __post_init__(self) -> None:
        if self.max_num_seqs < 1:
            raise ConfigError(f"max_num_seqs = {self.max_num_seqs} must be at least 1")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key go together: name both files, or neither")


def check_aliases(aliases: Mapping[str, str], models: Mapping[str, object]) -> None:
    """Raise ConfigError for an alias of a model that is not served, or that has the name of one."""
    for alias, model in aliases.items():
        if alias in models:
            raise ConfigError(f"aliases: {alias!r} is the name of a model already")
        if model not in models:
            raise ConfigError(f"aliases: {alias} = {model!r} is not served; there are {', '.join(models)}")
