"""A server's settings: URLs, numbers and keys that cannot be right are refused by name."""

import pytest

from shoestring import config as configs
from shoestring.errors import ConfigError
from shoestring.remote.client import ChatClient
from shoestring.remote.config import RemoteConfig

KEY = "sk-very-secret-123"
PRICES = {"price_in": 1.0, "price_out": 10.0}


def client(url, **changes):
    return ChatClient(url, RemoteConfig(**{"model": "m"} | changes))


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://x", "ftp"),
        ("http://u:p@x/v1", "remote.key_env"),
        ("http://x/?key=1", "key_env"),
        ("http://[", "read"),
    ],
)
def test_urls_that_cannot_be_meant(url, word):
    with pytest.raises(ConfigError, match=word):
        client(url)


@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": 0},
        {"timeout_s": 0.0},
        {"price_in": -1.0},
        {"cost_cap": 1.0},
        {"extra": {"n": 3}},
    ],
)
def test_configurations_that_cannot_be_meant(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RemoteConfig(model="m", **changes)


def test_keys_and_models_are_asked_for_by_name(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        client("http://x/v1", key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match=r"remote\.model"):
        client("http://x/v1", model="")
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nX: y")
    with pytest.raises(ConfigError, match="ODD_KEY") as caught:
        client("http://x/v1", key_env="ODD_KEY")
    assert KEY not in str(caught.value)


def test_the_config_is_a_recipe(tmp_path):
    config = RemoteConfig(
        model="m", extra={"chat_template_kwargs": {"thinking": True}}, cost_cap=2.0, **PRICES
    )
    configs.save(config, tmp_path / "c.toml")
    assert configs.load(RemoteConfig, tmp_path / "c.toml") == config
