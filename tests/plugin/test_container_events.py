"""News of containers, from an engine whose stream ends, stalls and lies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from swarmcore.plugin import container_events
from swarmcore.plugin.container_events import ContainerEvents, Watcher
from swarmcore.plugin.executor import TemporaryError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


def event(name: str) -> bytes:
    return json.dumps({"Actor": {"Attributes": {"name": name}}}).encode() + b"\n"


class Engine:
    """Takes one connection after another; what it has been told to say goes to the last."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._open: list[asyncio.StreamWriter] = []
        self._writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        self._open.append(writer)
        writer.write(HEAD)
        await self._writers.put(writer)

    def close(self) -> None:
        for writer in self._open:
            writer.close()

    async def listener(self) -> asyncio.StreamWriter:
        """Who listens next."""
        async with asyncio.timeout(5):
            return await self._writers.get()


@contextlib.asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[tuple[Engine, ContainerEvents]]:
    engine = Engine()
    server = await asyncio.start_unix_server(engine.serve, folder / "s")
    events = ContainerEvents("Docker", f"unix://{folder}/s", "/v1.41/events", {"type": ["container"]})
    try:
        yield engine, events
    finally:
        await events.aclose()
        server.close()
        engine.close()


async def news(watcher: Watcher) -> bool:
    return await watcher.wait(5)


async def test_an_event_wakes_those_who_watch_its_container_and_nobody_else(tmp_path: Path) -> None:
    async with listening(tmp_path) as (engine, events):
        stream = await engine.listener()
        with events.watch("a") as first, events.watch("a") as second, events.watch("b") as other:
            # The stream's beginning concerns all.
            assert all([await news(first), await news(second), await news(other)])

            whole = event("a")
            stream.write(chunk(whole[:7]))
            stream.write(chunk(whole[7:]))

            assert await news(first)
            assert await news(second)
            assert not await other.wait(0)


async def test_a_stream_that_begins_anew_wakes_everybody(tmp_path: Path) -> None:
    async with listening(tmp_path) as (engine, events):
        with events.watch("a") as watcher:
            (await engine.listener()).close()
            assert await news(watcher)
            before = events.heard

            await engine.listener()

            assert await news(watcher)
            assert events.heard > before


@pytest.mark.parametrize(
    "nonsense", [b"{\n", b'"x"\n', b'{"Actor": {"Attributes": null}}\n', b'{"Actor": 1}\n', b"[]\n"]
)
async def test_nonsense_does_not_end_the_listening(tmp_path: Path, nonsense: bytes) -> None:
    async with listening(tmp_path) as (engine, events):
        stream = await engine.listener()
        with events.watch("a") as watcher:
            await news(watcher)
            stream.write(chunk(nonsense))
            stream.write(chunk(event("a")))

            assert await news(watcher)


async def test_an_event_without_an_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_events, "MAX_EVENT", 1000)
    async with listening(tmp_path) as (engine, _):
        stream = await engine.listener()
        stream.write(chunk(b"x" * 2000))

        # It is asked anew.
        await engine.listener()


async def test_what_happened_just_before_it_listened_is_asked_for_too(tmp_path: Path) -> None:
    async with listening(tmp_path) as (engine, _):
        await engine.listener()

        assert "since=" in engine.heads[0]
        assert "filters=%7B%22type%22" in engine.heads[0]


async def test_who_waits_is_told_that_it_was_closed(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, events):
        with events.watch("a") as watcher:
            await news(watcher)
            waiting = asyncio.ensure_future(watcher.wait(None))
            await asyncio.sleep(0)

            await events.aclose()

            with pytest.raises(TemporaryError, match="closed"):
                await waiting
        with events.watch("b") as late, pytest.raises(TemporaryError, match="closed"):
            await late.wait(None)
