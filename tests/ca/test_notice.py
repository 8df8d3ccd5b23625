"""Only who holds the root's key can say that a group was replaced."""

from __future__ import annotations

import pytest

from swarmcore.api.raft_pb2 import RaftReplacedNotice
from swarmcore.ca.notice import is_signed, sign_notice
from swarmcore.ca.root import RootCA

NOW = 1_700_000_000.0


def notice() -> RaftReplacedNotice:
    return RaftReplacedNotice(old_group="", new_group="new", addr="10.1.1.1:4242")


def test_what_the_root_signed_is_believed_and_nothing_else() -> None:
    root, other = RootCA.create(now=NOW), RootCA.create(now=NOW)
    said = notice()
    assert root.key_pem is not None

    sign_notice(said, "cluster-1", root.key_pem)

    assert is_signed(said, "cluster-1", root.certificates)
    assert is_signed(said, "cluster-1", [*other.certificates, *root.certificates])
    assert not is_signed(said, "cluster-1", other.certificates)
    assert not is_signed(said, "cluster-2", root.certificates)
    assert not is_signed(notice(), "cluster-1", root.certificates)


@pytest.mark.parametrize("field", ["old_group", "new_group", "addr"])
def test_a_notice_that_was_changed_is_not_believed(field: str) -> None:
    root = RootCA.create(now=NOW)
    said = notice()
    assert root.key_pem is not None
    sign_notice(said, "cluster-1", root.key_pem)

    setattr(said, field, getattr(said, field) + "x")

    assert not is_signed(said, "cluster-1", root.certificates)


def test_what_is_too_long_is_not_even_looked_at() -> None:
    root = RootCA.create(now=NOW)
    said = notice()
    assert root.key_pem is not None
    said.addr = "x" * 2000
    sign_notice(said, "cluster-1", root.key_pem)

    assert not is_signed(said, "cluster-1", root.certificates)
