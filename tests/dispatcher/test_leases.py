"""Leases, periods and the limit on registrations, as pure values."""

from __future__ import annotations

from random import Random

from swarmcore.dispatcher.leases import LeaseKind, Leases, RegistrationLimit, heartbeat_period


def test_the_period_stretches_with_the_number_of_nodes() -> None:
    rng = Random(1)

    assert 4.5 <= heartbeat_period(5, 500, rng) <= 5.5
    assert 9.5 <= heartbeat_period(5, 1000, rng) <= 10.5
    assert 4.5 <= heartbeat_period(0, 1, rng) <= 5.5
    assert 0.05 <= heartbeat_period(0.1, 1, rng) <= 0.15


def test_a_renewed_lease_ends_at_its_new_deadline() -> None:
    leases = Leases()
    leases.grant("n1", LeaseKind.SESSION, 15, now=0)
    leases.grant("n1", LeaseKind.SESSION, 15, now=10)

    assert list(leases.expired(16)) == []
    assert list(leases.expired(25)) == [("n1", LeaseKind.SESSION)]
    assert list(leases.expired(100)) == []


def test_a_shorter_lease_replaces_a_longer_one() -> None:
    leases = Leases()
    leases.grant("n1", LeaseKind.ORPHAN, 86400, now=0)
    leases.grant("n1", LeaseKind.SESSION, 15, now=1)

    assert list(leases.expired(20)) == [("n1", LeaseKind.SESSION)]
    assert list(leases.expired(90000)) == []


def test_time_in_which_nobody_could_be_heard_is_not_counted() -> None:
    leases = Leases()
    leases.grant("n1", LeaseKind.SESSION, 15, now=0)

    leases.forgive(60)

    assert list(leases.expired(70)) == []
    assert list(leases.expired(75)) == [("n1", LeaseKind.SESSION)]


def test_renewals_do_not_grow_the_heap() -> None:
    leases = Leases()
    for second in range(1000):
        leases.grant("n1", LeaseKind.SESSION, 15, now=second)
        list(leases.expired(second))

    assert len(leases) == 1
    assert len(leases._heap) == 1


def test_a_refused_registration_does_not_prolong_the_wait() -> None:
    limit = RegistrationLimit()
    admitted = [limit.admits("n1", second) for second in range(8)]

    assert admitted == [True] * 4 + [False] * 4
    assert limit.admits("n1", 12)
    assert limit.admits("n2", 3)
