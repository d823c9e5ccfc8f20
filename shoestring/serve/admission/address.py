"""Addresses of clients: the network of one, and the real one behind proxies that are trusted."""

import ipaddress
from collections.abc import Sequence

from shoestring.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(address: str) -> str:
    """The /24 of an IPv4 address or the /64 of an IPv6 one: about what one person can have many of."""
    if ":" not in address:
        return address.rpartition(".")[0]
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.ipv4_mapped is not None:
        return network_of(str(ip.ipv4_mapped))
    return ip.packed[:8].hex(":", 2)


class Proxies:
    """Reverse proxies whose word about a client's address counts."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """`networks` as in 10.0.0.0/8. Raises ConfigError for one that is none."""
        self._networks = tuple(_network(text) for text in networks)

    def include(self, address: str) -> bool:
        """Return whether an address is a trusted proxy's."""
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def client(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The client behind `peer`: the last address in X-Forwarded-For that is no trusted proxy's."""
        if not self.include(peer):
            return peer
        lists = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
        for address in reversed([part.strip() for text in lists for part in text.split(",")]):
            if not _is_address(address):
                return peer
            peer = address
            if not self.include(address):
                break
        return peer


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--trusted-proxy {text}: {error}; write it as 10.0.0.0/8") from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
