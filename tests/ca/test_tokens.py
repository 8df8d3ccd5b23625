"""Tokens and unlock keys: only what a manager made is read, and nothing secret is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmcore.api.types_pb2 import JoinTokens, NodeRole
from swarmcore.ca.tokens import (
    JoinToken,
    new_join_token,
    parse_join_token,
    role_of_token,
    rotate_join_tokens,
    same_secret,
)
from swarmcore.errors import InvalidArgumentError

DIGEST = "0" * 60 + "abcd"


@given(st.integers(0, 2**256 - 1), st.booleans())
def test_a_token_carries_the_digest_of_the_root(digest: int, fips: bool) -> None:
    token = parse_join_token(new_join_token(f"{digest:064x}", fips=fips))

    assert (token.ca_digest, token.fips) == (f"{digest:064x}", fips)


def test_a_token_has_swarmkits_form() -> None:
    parts = new_join_token(DIGEST).split("-")

    assert parts[:2] == ["SWMTKN", "1"] and [len(part) for part in parts[2:]] == [50, 25]
    assert new_join_token(DIGEST, fips=True).startswith("SWMTKN-2-1-")
    assert parts[3] not in repr(parse_join_token("-".join(parts)))


@given(st.text(max_size=200))
def test_any_other_text_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_join_token(text)

    assert len(text) < 20 or text not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda t: t + " ", lambda t: t[:-1], lambda t: t.upper(), lambda t: t.replace("-1-", "-3-")]
)
def test_a_token_that_was_changed_is_refused(change: object) -> None:
    token = str(JoinToken(ca_digest=DIGEST, secret="z" * 24 + "1"))

    with pytest.raises(InvalidArgumentError):
        parse_join_token(change(token))  # type: ignore[operator]


def test_each_token_stands_for_its_role_and_rotates_alone() -> None:
    tokens = rotate_join_tokens(JoinTokens(), ca_digest=DIGEST, worker=True, manager=True)
    rotated = rotate_join_tokens(tokens, ca_digest=DIGEST, worker=True, manager=False)

    assert role_of_token(tokens.worker, tokens) == NodeRole.WORKER
    assert role_of_token(tokens.manager, tokens) == NodeRole.MANAGER
    assert role_of_token(tokens.worker, rotated) is None
    assert rotated.manager == tokens.manager


def test_an_empty_secret_equals_nothing() -> None:
    assert not same_secret("", "")
    assert role_of_token("", JoinTokens()) is None


def test_what_was_typed_as_a_token_is_not_repeated() -> None:
    secret = new_join_token(DIGEST).rpartition("-")[2]
    for typed in (f"SWMTKN-{secret}-1-2", f"SWMTKN-1-{secret}", secret, f"SWMTKN-2-{secret}-a-b"):
        with pytest.raises(InvalidArgumentError) as caught:
            parse_join_token(typed)
        assert secret not in str(caught.value)
