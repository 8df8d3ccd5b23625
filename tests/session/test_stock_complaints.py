"""What counts as a complaint in a stock engine's log: of each session of its agent the first failure."""

from __future__ import annotations

from swarmcore.testing.three_hosts import first_failures

SELECTED = 'level=info msg="manager selected by agent for new session: {1 10.0.0.1:4242}" module=node/agent'
CLOSING = 'level=error msg="agent: session failed" backoff=100ms error="transport is closing" module=node/agent'
CANCELED = 'level=error msg="agent: session failed" backoff=300ms error="context canceled" module=node/agent'
OTHER = 'level=error msg="fatal task error" module=node/agent/taskmanager'


def kept(*lines: str) -> list[str]:
    return list(first_failures("\n".join(lines)))


def test_a_second_failure_of_one_session_is_no_complaint() -> None:
    assert kept(SELECTED, CLOSING, CANCELED, SELECTED) == [SELECTED, CLOSING, SELECTED]


def test_a_cancelled_session_that_nothing_failed_before_is_one() -> None:
    assert kept(SELECTED, CANCELED) == [SELECTED, CANCELED]
    assert kept(SELECTED, CLOSING, SELECTED, CANCELED) == [SELECTED, CLOSING, SELECTED, CANCELED]


def test_what_else_the_engine_says_is_kept_wherever_it_stands() -> None:
    assert kept(OTHER, SELECTED, CLOSING, OTHER, CANCELED, OTHER) == [OTHER, SELECTED, CLOSING, OTHER, OTHER]
