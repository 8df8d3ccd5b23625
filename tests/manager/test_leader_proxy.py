"""The way to the leader, over real sockets: found, waited for, and not torn down for one call's sake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from swarmcore.api.metadata import NOT_DONE, OUTCOME
from swarmcore.ca.forwarding import READ_PATIENCE_SECONDS, BecameLeader, NoLeaderError
from swarmcore.ca.security import SecurityConfig
from swarmcore.errors import LostLeadershipError, UnavailableError
from swarmcore.manager.leader_proxy import LEADER_SECONDS, WATCH_SECONDS, LeaderProxy
from swarmcore.raft.membership import Member, Membership
from swarmcore.replication.replica import Replica
from swarmcore.testing.clock import SimulatedClock

FOLLOWER, LEADER = 1, 2
READ = "/docker.swarmkit.v1.Control/ListNodes"


class FakeReplica:
    """What a follower knows of the group."""

    raft_id = FOLLOWER

    def __init__(self, address: str) -> None:
        self.term = 0
        self.leader: Member | None = Member(id=LEADER, node_id="l", address=address, is_voter=True)
        self.membership = Membership({id: Member(id=id, node_id="", address="", is_voter=True) for id in (1, 2, 3)}, 3)

    def who_is_missing(self) -> str:
        return "2 of 3 managers must be online; not heard from: host-2:4242, host-3:4242"


class FakeSecurity:
    """Channels without certificates, counted."""

    def __init__(self) -> None:
        self.serial = 0
        self.dialled: list[str] = []

    def open_watched_channel(self, address: str) -> grpc.aio.Channel:
        self.dialled.append(address)
        return grpc.aio.insecure_channel(address)


class Leader(grpc.GenericRpcHandler):
    """Echoes calls of /Echo and reads, refuses those of /Refuse, and streams numbers for as long as it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.deposed = 0
        """So many calls find that it leads no more."""
        self.is_dying = False
        """Calls never get their answer."""
        self.has_call = asyncio.Event()
        self.waits = False
        """Calls wait for `goes_on`."""
        self.goes_on = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def echo(request: bytes, context: Any) -> bytes:
            self.calls += 1
            self.has_call.set()
            if self.waits:
                await self.goes_on.wait()
            if self.is_dying:
                await asyncio.sleep(60)
            if self.calls <= self.deposed:
                context.set_trailing_metadata(((OUTCOME, NOT_DONE),))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "leadership is being handed over")
            return request

        async def refuse(request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            raise AssertionError("unreachable")

        async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for number in range(1_000_000):
                yield str(number).encode()
                await asyncio.sleep(0.001)

        return {
            "/Echo": grpc.unary_unary_rpc_method_handler(echo),
            READ: grpc.unary_unary_rpc_method_handler(echo),
            "/Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "/Count": grpc.unary_stream_rpc_method_handler(count),
        }[details.method]


@contextlib.asynccontextmanager
async def leading(address: str) -> AsyncIterator[Leader]:
    leader, server = Leader(), grpc.aio.server()
    server.add_generic_rpc_handlers((leader,))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield leader
    finally:
        await server.stop(0)


class Following:
    """A proxy and all that it looks at."""

    def __init__(self, address: str) -> None:
        self.replica, self.security, self.clock = FakeReplica(address), FakeSecurity(), SimulatedClock()
        self.proxy = LeaderProxy(cast(Replica, self.replica), cast(SecurityConfig, self.security), self.clock)

    def echo(self, data: bytes, method: str = "/Echo") -> asyncio.Task[bytes]:
        return asyncio.create_task(self.proxy.unary(method, data, (), None))


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[Following]:
    following = Following(f"unix:{tmp_path}/leader.sock")
    yield following
    await following.proxy.aclose()


def address_of(following: Following) -> str:
    assert following.replica.leader is not None
    return following.replica.leader.address


async def test_calls_share_one_connection_that_one_calls_error_does_not_end(following: Following) -> None:
    async with leading(address_of(following)):
        numbers = following.proxy.stream("/Count", b"", ())
        assert await anext(numbers) == b"0"
        with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
            await following.proxy.unary("/Refuse", b"", (), None)

        assert await following.echo(b"x") == b"x"
        assert [await anext(numbers) for _ in range(3)] == [b"1", b"2", b"3"]
        await cast(Any, numbers).aclose()

    assert len(following.security.dialled) == 1


async def test_a_renewed_certificate_is_shown_from_the_next_call_on(following: Following) -> None:
    async with leading(address_of(following)):
        await following.echo(b"x")
        following.security.serial += 1
        await following.echo(b"x")

    assert len(following.security.dialled) == 2


async def test_a_stream_whose_connection_is_closed_ends_with_words_and_not_with_a_cancellation(
    following: Following,
) -> None:
    async with leading(address_of(following)):
        numbers = following.proxy.stream("/Count", b"", ())
        await anext(numbers)
        following.security.serial += 1
        await following.echo(b"x")
        assert await anext(numbers) == b"1"

        await following.proxy.aclose()
        with pytest.raises(UnavailableError, match="renewed: call again"):
            await _all_of(numbers)


async def test_a_stream_whose_leader_dies_says_so_in_words(following: Following) -> None:
    async with leading(address_of(following)):
        numbers = following.proxy.stream("/Count", b"", ())
        await anext(numbers)

    with pytest.raises(UnavailableError, match=r"^the connection to the leading manager broke$"):
        await _all_of(numbers)


async def _all_of(numbers: AsyncIterator[bytes]) -> None:
    async for _ in numbers:
        pass


async def test_a_write_under_way_gets_its_answer_when_the_certificate_is_renewed(following: Following) -> None:
    async with leading(address_of(following)) as leader:
        leader.waits = True
        write = following.echo(b"slow")
        await leader.has_call.wait()
        leader.waits = False
        following.security.serial += 1
        await following.echo(b"x")
        leader.goes_on.set()

        assert await write == b"slow"


async def test_a_call_waits_for_a_leader_that_is_not_there_yet(following: Following) -> None:
    found, following.replica.leader = following.replica.leader, None
    call = following.echo(b"x")
    await following.clock.advance(1.0)
    assert not call.done()

    following.replica.leader = found
    async with leading(address_of(following)) as leader:
        await following.clock.advance(0.1)
        assert await call == b"x"
        assert leader.calls == 1


async def test_without_a_leader_it_says_how_many_managers_are_needed_and_which_are_silent(
    following: Following,
) -> None:
    following.replica.leader = None
    call = following.echo(b"x")
    await following.clock.advance(LEADER_SECONDS + 0.1)

    silent = "2 of 3 managers must be online; not heard from: host-2:4242, host-3:4242"
    with pytest.raises(NoLeaderError, match=silent):
        await call


async def test_a_manager_that_becomes_the_leader_meanwhile_answers_itself(following: Following) -> None:
    following.replica.leader = None
    call = following.echo(b"x")
    await following.clock.advance(0.1)
    following.replica.term = 7
    await following.clock.advance(0.1)

    with pytest.raises(BecameLeader):
        await call


async def test_what_did_nothing_at_a_leader_that_hands_over_goes_to_the_next_one(following: Following) -> None:
    async with leading(address_of(following)) as leader:
        leader.deposed = 2
        call = following.echo(b"x")
        await following.clock.until_done(call)

        assert await call == b"x"
        assert leader.calls == 3


async def test_a_write_whose_leader_died_in_its_middle_is_not_sent_again(following: Following) -> None:
    async with leading(address_of(following)) as leader:
        leader.is_dying = True
        call = following.echo(b"x")
        await leader.has_call.wait()

    with pytest.raises(LostLeadershipError, match="look whether it was done before you ask again"):
        await call
    assert leader.calls == 1


async def test_a_read_whose_leader_died_in_its_middle_is_asked_again(following: Following) -> None:
    async with leading(address_of(following)) as leader:
        leader.is_dying = True
        call = following.echo(b"x", READ)
        await leader.has_call.wait()
    async with leading(address_of(following)):
        await following.clock.until_done(call)

        assert await call == b"x"


async def test_a_call_at_a_manager_that_hangs_ends_when_another_one_leads(following: Following) -> None:
    watching = asyncio.create_task(following.proxy.run())
    async with leading(address_of(following)) as leader:
        leader.is_dying = True
        call = following.echo(b"x")
        await leader.has_call.wait()
        await following.clock.advance(10 * WATCH_SECONDS)
        assert not call.done()

        following.replica.leader = Member(id=3, node_id="n", address="unix:/nowhere", is_voter=True)
        await following.clock.advance(2 * WATCH_SECONDS)

        with pytest.raises(LostLeadershipError, match="look whether it was done before you ask again"):
            await call
    watching.cancel()


async def test_a_read_does_not_wait_where_there_has_been_no_leader_for_long(following: Following) -> None:
    following.replica.leader = None
    await following.clock.advance(READ_PATIENCE_SECONDS + 0.1)

    with pytest.raises(NoLeaderError):
        await following.proxy.unary(READ, b"x", (), None)


async def test_a_read_does_not_wait_long_for_a_leader(following: Following) -> None:
    following.replica.leader = None
    call = following.echo(b"x", READ)
    await following.clock.advance(READ_PATIENCE_SECONDS + 0.1)

    with pytest.raises(NoLeaderError):
        await call
