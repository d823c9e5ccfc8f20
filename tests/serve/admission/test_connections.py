"""Connections: limits of strangers, and room for addresses that are familiar."""

from shoestring.serve.admission.address import Proxies
from shoestring.serve.admission.connections import ConnectionLimits, Connections

LIMITS = ConnectionLimits(
    total=8,
    strangers=5,
    per_address=2,
    per_network=3,
    new_per_s=1000,
    again_per_s=1000,
    new_per_network_s=1000,
)


def test_one_address_and_one_network_have_their_limits():
    connections = Connections(LIMITS)
    assert connections.admit("192.0.2.1")
    release = connections.admit("192.0.2.1")
    assert release
    assert not connections.admit("192.0.2.1")
    assert connections.admit("192.0.2.2")
    assert not connections.admit("192.0.2.3")
    assert connections.num_refusals == 2
    release()
    assert connections.admit("192.0.2.3")
    assert connections.num_open == 3


def test_familiar_addresses_and_proxies_have_room_that_strangers_cannot_take():
    connections = Connections(LIMITS, Proxies(["10.0.0.0/8"]))
    for number in range(5):
        assert connections.admit(f"192.0.{number}.1")
    assert not connections.admit("198.51.100.1")
    connections.greet("198.51.100.1")
    assert connections.admit("198.51.100.1")
    assert connections.admit("198.51.100.1")
    assert connections.admit("10.0.0.1")
    assert not connections.admit("10.0.0.1")  # the total


def test_familiarity_ends_after_a_day():
    now_s = [0.0]
    connections = Connections(LIMITS, clock=lambda: now_s[0])
    connections.greet("192.0.2.1")
    now_s[0] = 24 * 3600 - 1
    assert connections.knows("192.0.2.1")
    now_s[0] += 2
    assert not connections.knows("192.0.2.1")


def admitted(connections: Connections, address: str, number: int = 9) -> int:
    return sum(bool(connections.admit(address)) for _ in range(number))


def test_new_connections_of_strangers_have_a_rate():
    now_s = [0.0]
    limits = ConnectionLimits(new_per_s=10, again_per_s=10, new_per_network_s=4)
    connections = Connections(limits, clock=lambda: now_s[0])
    assert admitted(connections, "192.0.2.1") == 4
    assert sum(admitted(connections, f"192.0.{n}.1", 1) for n in range(3, 30)) == 6
    now_s[0] += 0.5
    assert sum(admitted(connections, f"192.0.{n}.1", 1) for n in range(30, 60)) == 5
    connections.greet("192.0.2.1")
    assert admitted(connections, "192.0.2.1", 100) == 100


def test_a_newcomers_network_goes_before_those_whose_strangers_came_for_nothing():
    now_s = [0.0]
    limits = ConnectionLimits(new_per_s=100, again_per_s=10, new_per_network_s=1e6)
    connections = Connections(limits, clock=lambda: now_s[0])
    for tick in range(200):  # two thousand tries a second from 500 networks, for 20 s
        now_s[0] += 0.1
        for n in range(200):
            connections.admit(f"127.{(tick * 200 + n) % 500}.1.{n}")
    assert sum(admitted(connections, f"127.{n}.1.1", 1) for n in range(300)) == 0
    assert admitted(connections, "203.0.113.7", 1) == 1
    connections.greet("203.0.113.8")  # its neighbour has a key
    assert admitted(connections, "203.0.113.7", 1) == 1
    assert admitted(connections, "198.51.100.1", 50) == 50  # one program, at the same moment
    now_s[0] += 0.3
    assert admitted(connections, "198.51.100.1", 50) < 20
    now_s[0] += 601
    assert admitted(connections, "127.1.1.1", 1) == 1


def test_nothing_stays_of_connections_that_have_ended():
    connections = Connections(ConnectionLimits(new_per_s=1e6, again_per_s=1e6, new_per_network_s=1e6))
    releases = [connections.admit(f"192.0.2.{number % 50}") for number in range(200)]
    for release in releases:
        release()
    assert connections.num_open == 0
    assert not connections._strangers
