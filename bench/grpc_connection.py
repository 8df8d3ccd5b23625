"""The same connection for workers, spoken by grpcio: a client like any other, at a client's full cost.

A call costs the worker as much CPU time as the manager. With a thousand workers on the manager's own machine, that is
then a part of what is measured; `h2.py` is there to keep it out.
"""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from bench.h2 import Identity, Method, OnEnd, OnMessage


class GrpcConnection:
    """One channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, method: Method, message: bytes, on_message: OnMessage, on_end: OnEnd) -> None:
        """Send one request; each message of the answer comes to `on_message`."""
        task = asyncio.create_task(self._call(method, message, on_message, on_end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, method: Method, message: bytes, on_message: OnMessage, on_end: OnEnd) -> None:
        try:
            # No serialisers: bytes in, bytes out.
            ask: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method.path)
            answer: bytes
            async for answer in ask(message):
                on_message(answer)
        except grpc.aio.AioRpcError as error:
            on_end(f"{error.code().name}: {error.details()}")
        else:
            on_end("")

    def close(self) -> None:
        """Cut the connection."""
        for task in self._tasks:
            task.cancel()
        closing = asyncio.create_task(self._channel.close())
        self._tasks.add(closing)


async def connect(host: str, port: int, identity: Identity, server_name: str) -> GrpcConnection:
    """A verified connection; `server_name` is named in the TLS hello."""
    credentials = grpc.ssl_channel_credentials(identity.root, identity.key, identity.certificate)
    options = [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    ]
    channel = grpc.aio.secure_channel(f"{host}:{port}", credentials, options=options)
    await channel.channel_ready()
    return GrpcConnection(channel)
