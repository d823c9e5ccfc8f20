"""Addresses: networks, and clients behind proxies that are trusted or not."""

import pytest

from shoestring.errors import ConfigError
from shoestring.serve.admission.address import Proxies, network_of


def headers(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("::ffff:203.0.113.9", "203.0.113"),
    ],
)
def test_a_network_is_what_one_person_has_many_of(address, network):
    assert network_of(address) == network


def test_nobody_is_believed_without_trusted_proxies():
    assert Proxies().client("10.0.0.1", headers("203.0.113.9")) == "10.0.0.1"


def test_a_stranger_is_not_believed():
    assert Proxies(["10.0.0.0/8"]).client("192.0.2.1", headers("203.0.113.9")) == "192.0.2.1"


def test_the_client_is_the_last_address_that_is_no_proxy():
    proxies = Proxies(["10.0.0.0/8", "2001:db8::/32"])
    assert proxies.client("10.0.0.1", headers("1.1.1.1, 203.0.113.9, 10.0.0.2")) == "203.0.113.9"
    assert proxies.client("10.0.0.1", headers("1.1.1.1", "203.0.113.9, 2001:db8::7")) == "203.0.113.9"


def test_what_is_no_address_ends_the_search():
    proxies = Proxies(["10.0.0.0/8"])
    assert proxies.client("10.0.0.1", headers("203.0.113.9, unknown, 10.0.0.2")) == "10.0.0.2"
    assert proxies.client("10.0.0.1", []) == "10.0.0.1"


def test_a_network_that_is_none_is_an_error():
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/8"):
        Proxies(["proxy.example"])
