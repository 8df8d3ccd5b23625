"""Sends one snapshot to one manager, from the piece on that it has not got yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from swarmcore.api import raft_pb2 as pb
from swarmcore.api.raft_pb2_grpc import RaftStub
from swarmcore.errors import DamagedStateError
from swarmcore.raft.membership import Membership
from swarmcore.raft.messages import InstallSnapshot
from swarmcore.raft.types import SnapshotMeta
from swarmcore.replication.codec import encode
from swarmcore.replication.groups import group_metadata
from swarmcore.replication.snapshot_file import SnapshotReader

PROGRESS_SECONDS = 10.0


class Source(Protocol):
    """Where a snapshot comes from: the replica."""

    @property
    def membership(self) -> Membership: ...
    @property
    def group(self) -> str: ...
    async def open_snapshot(self, snapshot: SnapshotMeta) -> SnapshotReader: ...


async def send_snapshot(channel: grpc.aio.Channel, source: Source, message: InstallSnapshot) -> str:
    """Stream the snapshot that `message` announces; empty once it is there, else why it is not.

    There is a deadline on its progress and none on the whole: its size has no bound.
    """
    try:
        reader = await source.open_snapshot(message.snapshot)
        stub: Any = RaftStub(channel)
        metadata = group_metadata(source.membership, source.group)
        ask = pb.RaftReceivedRequest(header=encode(message), transfer=reader.transfer)
        first = (await stub.Received(ask, metadata=metadata, timeout=PROGRESS_SECONDS)).pieces
        call = stub.Install(metadata=metadata)
        try:
            async for part in _parts(message, reader, first):
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await call.write(part)
            async with asyncio.timeout(PROGRESS_SECONDS):
                await call.done_writing()
                await call
        finally:
            call.cancel()
    except (OSError, DamagedStateError, grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
        return (error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)) or "no progress"
    return ""


async def _parts(message: InstallSnapshot, reader: SnapshotReader, first: int) -> AsyncIterator[pb.RaftSnapshotPart]:
    yield pb.RaftSnapshotPart(header=encode(message), transfer=reader.transfer, first=first)
    count = first
    pieces = reader.pieces(first)
    # Read in a thread: to decrypt and inflate one takes milliseconds.
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield pb.RaftSnapshotPart(piece=piece)
        count += 1
        await asyncio.sleep(0)
    yield pb.RaftSnapshotPart(end=count)
