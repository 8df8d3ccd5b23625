"""Which address other nodes are told."""

from __future__ import annotations

import pytest

from swarmcore.node import addresses


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        ("0.0.0.0:4242", "host1.example:5000", "host1.example:5000"),
        ("10.1.1.1:4242", "", "10.1.1.1:4242"),
        ("[fd00::1]:4242", "", "[fd00::1]:4242"),
        ("0.0.0.0:4242", "", "192.168.7.7:4242"),
        (":4242", "", "192.168.7.7:4242"),
        ("[::]:4242", "", "192.168.7.7:4242"),
    ],
)
def test_what_is_given_comes_before_what_is_listened_on_before_what_is_found(
    monkeypatch: pytest.MonkeyPatch, listen: str, advertise: str, told: str
) -> None:
    monkeypatch.setattr(addresses, "candidates", lambda: [("eth0", "192.168.7.7"), ("eth1", "10.0.0.1")])

    assert addresses.advertised(listen, advertise) == told


def test_an_address_that_nobody_chose_is_told_with_what_changes_it() -> None:
    assert addresses.described("10.0.0.5:4242", "10.0.0.5:4242") == "10.0.0.5:4242"
    assert addresses.described("10.0.0.5:4242", "") == "10.0.0.5:4242; --advertise-remote-api names another address"
    for own in ("127.0.0.1:4242", "localhost:4242", "[::1]:4242"):
        assert addresses.described(own, "").startswith(f"{own}, which only this machine reaches; ")


def test_a_machine_without_a_network_is_told_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "candidates", list)

    assert addresses.advertised("0.0.0.0:4242", "") == "127.0.0.1:4242"


def test_this_machines_own_interfaces_are_read_without_loopback() -> None:
    assert all(not address.startswith("127.") for _, address in addresses.candidates())
