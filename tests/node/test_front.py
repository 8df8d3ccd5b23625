"""The splice in front of the listeners: right target, nothing lost, nothing held for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from swarmcore.node import front as front_module
from swarmcore.node.admission import Admission, origin_of
from swarmcore.node.client_hello import NotTLSError
from swarmcore.node.front import ByFirstByte, ByServerName, Front
from swarmcore.node.listeners import bind_tcp

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ByLetter:
    """`a` and `b` to a listener, `.` waits, the rest is refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def feed(self, data: bytes) -> Path | None:
        letter = data.strip(b".")[:1]
        if letter in (b"a", b"b"):
            return self._folder / letter.decode()
        if letter:
            raise NotTLSError("unknown letter")
        return None


class Scene:
    """A front with two listeners that hand their connections to the test."""

    def __init__(self, front: Front, port: int, arrived: dict[str, asyncio.Queue[Streams]]) -> None:
        self.front = front
        self.port = port
        self.arrived = arrived

    async def connect(self, first: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(first)
        return reader, writer


@contextlib.asynccontextmanager
async def scene(
    folder: Path, *, limit: int = 100, most: int = 100, most_to_a: int = 100, hello_seconds: float = 10.0
) -> AsyncIterator[Scene]:
    arrived: dict[str, asyncio.Queue[Streams]] = {"a": asyncio.Queue(), "b": asyncio.Queue()}

    def taker(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        return lambda reader, writer: arrived[name].put_nowait((reader, writer))

    servers = [await asyncio.start_unix_server(taker(name), folder / name) for name in arrived]
    front = Front(
        lambda: ByLetter(folder),
        admission=Admission(per_address=limit, in_all=most, per_target={folder / "a": most_to_a}),
        hello_seconds=hello_seconds,
    )
    bound = bind_tcp("127.0.0.1:0")
    await front.listen(bound)
    try:
        yield Scene(front, bound.getsockname()[1], arrived)
    finally:
        await front.aclose()
        for server in servers:
            server.close()
        await asyncio.sleep(0)


async def test_a_connection_goes_where_its_first_bytes_say_and_they_arrive_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        reader, writer = await at.connect(b".")
        writer.write(b".b-first")
        inner_reader, inner_writer = await at.arrived["b"].get()
        inner_writer.write(b"answer")

        assert await inner_reader.readexactly(9) == b"..b-first"
        assert await reader.readexactly(6) == b"answer"
        assert at.arrived["a"].empty()
        writer.close()
        inner_writer.close()


async def test_the_listener_can_ask_for_the_remote_address(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        _, writer = await at.connect(b"a")
        inner_reader, inner_writer = await at.arrived["a"].get()
        name = "unix-abstract:" + inner_writer.get_extra_info("peername").removeprefix(b"\0").decode()

        assert at.front.remote_address(name) == "127.0.0.1"

        writer.close()
        await inner_reader.read()
        inner_writer.close()
        await _until(lambda: not at.front.remote_address(name))
        assert at.front.connections == 0


async def test_each_side_can_end_its_half_and_still_listen(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        reader, writer = await at.connect(b"a")
        writer.write(b" question")
        writer.write_eof()
        inner_reader, inner_writer = await at.arrived["a"].get()

        assert await inner_reader.read() == b"a question"
        inner_writer.write(b"a late answer")
        inner_writer.close()
        assert await reader.read() == b"a late answer"
        writer.close()


async def test_a_slow_reader_slows_the_writer_down_instead_of_filling_memory(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        reader, writer = await at.connect(b"a")
        inner_reader, inner_writer = await at.arrived["a"].get()
        await inner_reader.readexactly(1)
        payload = bytes(range(256)) * 256 * 1024  # 64 MiB: more than all buffers on the way hold

        sending = asyncio.create_task(_send(inner_writer, payload))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        assert await reader.readexactly(len(payload)) == payload
        await sending
        back = asyncio.create_task(_send(writer, payload))
        assert await inner_reader.readexactly(len(payload)) == payload
        await back
        writer.close()
        inner_writer.close()


async def _until(holds: Callable[[], bool]) -> None:
    """Give the loop its turns until something is so."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what the front knows has no event
            await asyncio.sleep(0)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@pytest.mark.parametrize("data", [b"garbage", b"\x00" * 1000, b"GET / HTTP/1.1\r\n\r\n"])
async def test_garbage_closes_the_connection(tmp_path: Path, data: bytes) -> None:
    async with scene(tmp_path) as at:
        reader, writer = await at.connect(data)

        assert await _read_to_the_end(reader) == b""
        writer.close()


async def test_a_caller_that_says_too_little_for_too_long_is_closed(tmp_path: Path) -> None:
    async with scene(tmp_path, hello_seconds=0.1) as at:
        reader, writer = await at.connect(b".")
        drip = asyncio.create_task(_drip(writer))

        assert await asyncio.wait_for(_read_to_the_end(reader), 5) == b""
        drip.cancel()
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while True:
            writer.write(b".")
            await asyncio.sleep(0.01)


async def _read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


async def test_one_address_may_have_only_so_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front_module, "_address_of", lambda peer: "192.0.2.1")
    async with scene(tmp_path, limit=2) as at:
        kept = [await at.connect(b"a") for _ in range(2)]
        inner = [await at.arrived["a"].get() for _ in kept]
        reader, refused = await at.connect(b"a")

        assert await _read_to_the_end(reader) == b""
        assert "192.0.2.1 has 2 connections already" in caplog.text
        for _, writer in (kept[0], inner[0]):
            writer.close()
        await _until(lambda: at.front.connections < 2)
        kept.append(await at.connect(b"a"))
        inner.append(await at.arrived["a"].get())
        for writer in (refused, *(each[1] for each in (*kept, *inner))):
            writer.close()


async def test_strangers_take_no_place_that_another_listener_needs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, most_to_a=1) as at:
        _, first = await at.connect(b"a")
        _, inner = await at.arrived["a"].get()
        for _ in range(5):
            reader, refused = await at.connect(b"a")
            assert await _read_to_the_end(reader) == b""
            refused.close()

        assert caplog.text.count("1 connections without a certificate are open") == 1
        _, other = await at.connect(b"b")
        _, other_inner = await at.arrived["b"].get()
        first.close()
        inner.close()
        await _until(lambda: at.front.connections == 1)
        _, next_one = await at.connect(b"a")
        _, next_inner = await at.arrived["a"].get()
        for writer in (other, other_inner, next_one, next_inner):
            writer.close()


async def test_there_are_never_more_connections_than_the_process_has_files_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, most=2) as at:
        kept = [await at.connect(b"b") for _ in range(2)]
        kept += [await at.arrived["b"].get() for _ in range(2)]
        reader, refused = await at.connect(b"a")

        assert await _read_to_the_end(reader) == b""
        assert "2 connections are open: refusing another" in caplog.text
        for writer in (refused, *(writer for _, writer in kept)):
            writer.close()


async def test_who_says_nothing_gives_way_to_who_comes_after(tmp_path: Path) -> None:
    async with scene(tmp_path, most=8) as at:
        silent = []
        for number in range(20):
            silent.append(await at.connect())
            await _until(lambda number=number: at.front.connections == min(number + 1, 2))  # type: ignore[misc]
        _, writer = await at.connect(b"a")
        _, inner = await at.arrived["a"].get()

        for reader, _ in silent[:19]:
            assert await _read_to_the_end(reader) == b""
        assert at.front.connections == 2
        for each in (writer, inner, *(writer for _, writer in silent)):
            each.close()


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("127.0.0.9", ""),
        ("::1", ""),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_counts_as_one_caller(address: str, origin: str) -> None:
    assert origin_of(address) == origin


async def test_a_listener_that_is_gone_closes_the_connection(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        (tmp_path / "a").unlink()
        reader, writer = await at.connect(b"a")

        assert await _read_to_the_end(reader) == b""
        assert not at.front._addresses
        writer.close()


async def test_closing_ends_every_connection(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        reader, writer = await at.connect(b"a")
        inner_reader, inner_writer = await at.arrived["a"].get()
        await at.front.aclose()

        assert await _read_to_the_end(reader) == b""
        await _read_to_the_end(inner_reader)
        assert at.front.connections == 0
        writer.close()
        inner_writer.close()


def test_the_first_byte_decides_on_the_control_socket() -> None:
    chooser = ByFirstByte(Path("tls"), Path("plain"))

    assert chooser.feed(b"\x16\x03\x01") == Path("tls")
    assert chooser.feed(b"PRI * HTTP/2.0") == Path("plain")


def test_the_server_name_is_matched_exactly() -> None:
    from tests.node.test_client_hello import real_hello

    for name, target in (
        ("swarm-manager", "nodes"),
        ("swarm-ca", "others"),
        ("swarm-manager.x", "others"),
        (None, "others"),
    ):
        chooser = ByServerName({"swarm-manager": Path("nodes")}, Path("others"))
        assert chooser.feed(real_hello(name)) == Path(target)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1"),
        ("", ""),
        (b"\0a", ""),
        (None, ""),
    ],
)
def test_addresses_are_read_in_one_spelling(peer: object, address: str) -> None:
    assert front_module._address_of(peer) == address


def test_a_socket_of_its_own_is_named_as_grpc_names_it() -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("")

        assert front_module._name_of(own) == "unix-abstract:" + own.getsockname()[1:].decode()
