"""Commands beside containers, and what containers use, by the HTTP API that Docker and Podman share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from swarmcore.plugin.engine_http import MAX_HEAD, Answer, ask, frames, words_of
from swarmcore.plugin.executor import ExecOptions, ExecSession, ExecutorError, TaskUsage, TemporaryError

CALL_SECONDS: Final = 20.0
END_SECONDS: Final = 5.0
END_POLL_SECONDS: Final = 0.05
TERM_SECONDS: Final = 1.5
RESIZE_TRIES: Final = 10
BEGIN_TRIES: Final = 40
MAX_ANSWER: Final = 4 * 1024 * 1024
Reword = Callable[[bytes, bytes], bytes]
"""From a piece of stderr, and the one before it, to what is passed on."""
STDOUT: Final = 1
STDERR: Final = 2
NOT_STARTED: Final = b"OCI runtime exec failed: "


class EngineApi:
    """Short requests to one engine, without threads. `prefix` is the API's version, such as `/v1.41`."""

    def __init__(self, address: str, prefix: str) -> None:
        self.address = address
        self.prefix = prefix

    async def call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """The decoded answer, None where it has no body. Raises ExecutorError in the engine's words, TemporaryError
        where there is no answer.
        """
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                ask(self.address, method, self.prefix + path, params=params, body=body) as answer,
            ):
                if answer.status >= 400:
                    raise ExecutorError(await answer.message())
                # Some engines keep the connection open after an answer that has no body.
                if answer.status in (204, 304) or answer.headers.get("content-length") == "0":
                    return None
                data = await answer.body(MAX_ANSWER)
                return json.loads(data) if data.strip() else None
        except TimeoutError as error:
            raise TemporaryError(f"the engine at {self.address} does not answer") from error
        except (OSError, ValueError) as error:
            raise TemporaryError(f"no answer from the engine at {self.address}: {words_of(error)}") from error


class _Upgraded(asyncio.StreamReaderProtocol):
    """The reading end of a connection that the engine has made a stream of bytes."""

    def connection_lost(self, exc: Exception | None) -> None:
        # An engine closes it while input is on its way, when the command has ended. That must not hide what the command
        # wrote; an engine that died does not tell the exit code.
        super().connection_lost(None)


class EngineCommand(ExecSession):
    """A command that an engine runs in a container."""

    def __init__(self, api: EngineApi, id: str, options: ExecOptions, reword: Reword) -> None:
        self._api = api
        self._reword = reword
        self._id = id
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._answer: Answer | None = None
        self._input: socket.socket | None = None
        """The connection once more, for writing: an error there ends no reading."""
        self._sending: set[asyncio.Future[None]] = set()
        self._code: int | None = None

    async def start(self) -> None:
        """Run it. Raises ExecutorError."""
        answer = await self._stack.enter_async_context(
            ask(
                self._api.address,
                "POST",
                f"{self._api.prefix}/exec/{self._id}/start",
                body={"Detach": False, "Tty": self._options.tty},
                upgrade=True,
            )
        )
        if answer.status >= 400:
            raise ExecutorError(await answer.message())
        self._answer = answer
        answer.writer.transport.set_protocol(_Upgraded(answer.reader))
        if self._options.stdin:
            descriptor = os.dup(answer.writer.get_extra_info("socket").fileno())
            self._input = socket.socket(fileno=descriptor)
            self._input.setblocking(False)
            self._stack.callback(self._input.close)
        if self._options.tty:
            # The engine takes a size only once the command runs.
            for _ in range(RESIZE_TRIES):
                if await self._try_resize(self._options.rows, self._options.columns):
                    break
                await asyncio.sleep(END_POLL_SECONDS)

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """What it writes; on a terminal without frames."""
        assert self._answer is not None
        chunks = _rest(self._answer)
        try:
            if self._options.tty:
                async for chunk in chunks:
                    yield STDOUT, chunk
            else:
                async with contextlib.aclosing(frames(chunks)) as found:
                    last = b""
                    async for stream, data in found:
                        if data.startswith(NOT_STARTED):
                            # The engine's words, and nothing of the command's: they are no output to go on with.
                            yield STDERR, data if data.endswith(b"\n") else data + b"\n"
                        elif stream == STDERR:
                            if said := self._reword(data, last):
                                yield STDERR, said
                            last = data
                        else:
                            yield stream or STDOUT, data
        except OSError as error:
            raise TemporaryError(f"the engine at {self._api.address} left the command: {error}") from error
        finally:
            await chunks.aclose()

    async def write(self, data: bytes) -> None:
        if self._input is None:
            return
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(self._input, data))
        self._sending.add(sending)
        try:
            await asyncio.wait({sending})
        finally:
            sending.cancel()
            self._sending.discard(sending)
        if sending.done() and (sending.cancelled() or sending.exception() is not None):
            # It reads no more, or has ended.
            self._input = None

    async def close_input(self) -> None:
        if self._options.tty:
            await self.write(b"\x04")
        elif self._input is not None:
            with contextlib.suppress(OSError):
                self._input.shutdown(socket.SHUT_WR)
            self._input = None

    async def resize(self, rows: int, columns: int) -> None:
        if self._options.tty:
            await self._try_resize(rows, columns)

    async def _try_resize(self, rows: int, columns: int) -> bool:
        try:
            await self._api.call("POST", f"/exec/{self._id}/resize", params={"h": str(rows), "w": str(columns)})
        except ExecutorError:
            return False
        return True

    async def signal(self, name: str) -> None:
        number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
        if not isinstance(number, signal.Signals):
            raise ExecutorError(f"{name!r} is not a signal")
        state = await self._state_of_begun()
        if state.get("Running"):
            self._kill(state, number)

    def _kill(self, state: Mapping[str, Any], number: int) -> None:
        """The engine has no call for this; its processes are this machine's where its socket is."""
        pid = int(state.get("Pid") or 0)
        if pid > 1 and self._api.address.startswith("unix://"):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            except OSError as error:
                raise ExecutorError(f"the command can't be signalled: {error.strerror}") from error

    async def wait(self) -> int:
        """Raises TemporaryError where it goes on running without its streams."""
        async with asyncio.timeout(END_SECONDS):
            while self._code is None:
                state = await self._state()
                if not state.get("Running") and state.get("ExitCode") is not None:
                    self._code = int(state["ExitCode"])
                else:
                    await asyncio.sleep(END_POLL_SECONDS)
        return self._code

    async def aclose(self) -> None:
        try:
            if self._answer is not None and self._code is None:
                # An engine forgets a command with its container: then there is nothing to end.
                with contextlib.suppress(ExecutorError):
                    await self._end()
        finally:
            self._input = None
            for sending in self._sending:
                sending.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            await self._stack.aclose()

    async def _end(self) -> None:
        for number in (signal.SIGHUP if self._options.tty else signal.SIGTERM, signal.SIGKILL):
            state = await self._state_of_begun()
            if not state.get("Running"):
                return
            self._kill(state, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERM_SECONDS):
                    await self.wait()
            if self._code is not None:
                return

    async def _state_of_begun(self) -> Mapping[str, Any]:
        """Its state. What a command writes may come before the engine has noted that it runs."""
        state = await self._state()
        for _ in range(BEGIN_TRIES):
            if state.get("ExitCode") is not None or (state.get("Running") and state.get("Pid")):
                break
            await asyncio.sleep(END_POLL_SECONDS)
            state = await self._state()
        return state

    async def _state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._api.call("GET", f"/exec/{self._id}/json") or {}
        return found


async def start_command(
    api: EngineApi,
    container: str,
    options: ExecOptions,
    *,
    reword: Reword = lambda data, last: data,
) -> EngineCommand:
    """Run a command in a container. Raises ExecutorError in the engine's words.

    `reword` makes better words of what an engine says on its own account in the command's stderr.
    """
    made = await api.call(
        "POST",
        f"/containers/{quote(container, safe='')}/exec",
        body={
            "AttachStdin": options.stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": options.tty,
            "Cmd": list(options.command),
            "Env": list(options.env),
            "WorkingDir": options.dir,
            "User": options.user,
        },
    )
    command = EngineCommand(api, str(made["Id"]), options, reword)
    try:
        await command.start()
    except OSError as error:
        await command.aclose()
        raise TemporaryError(f"no answer from the engine at {api.address}: {words_of(error)}") from error
    except BaseException:
        await command.aclose()
        raise
    return command


async def container_usage(api: EngineApi, container: str) -> TaskUsage:
    """What a container uses now. Raises ExecutorError in the engine's words."""
    path = f"/containers/{quote(container, safe='')}/stats"
    found = await api.call("GET", path, params={"stream": "false", "one-shot": "true"})
    return usage_of(found or {})


def usage_of(stats: Mapping[str, Any]) -> TaskUsage:
    """One sample as engines give it. Pure."""
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    details = memory.get("stats") or {}
    used = memory.get("usage")
    if used is not None:
        # What the system can take back at once counts for nobody.
        cached = int(details.get("inactive_file", details.get("total_inactive_file", 0)) or 0)
        used = int(used) - cached if cached < int(used) else int(used)
    networks = list((stats.get("networks") or {}).values())
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    total = cpu.get("total_usage")
    return TaskUsage(
        cpu_seconds=int(total) / 1e9 if total is not None else None,
        memory_bytes=used,
        memory_limit_bytes=int(memory["limit"]) if memory.get("limit") else None,
        network_received_bytes=sum(int(each.get("rx_bytes") or 0) for each in networks) if networks else None,
        network_sent_bytes=sum(int(each.get("tx_bytes") or 0) for each in networks) if networks else None,
        block_read_bytes=_blocks(blocks, "read"),
        block_written_bytes=_blocks(blocks, "write"),
        pids=(stats.get("pids_stats") or {}).get("current"),
    )


def _blocks(entries: Sequence[Mapping[str, Any]], kind: str) -> int:
    return sum(int(each.get("value") or 0) for each in entries if str(each.get("op")).lower() == kind)


async def _rest(answer: Answer) -> AsyncGenerator[bytes, None]:
    """What comes on a connection that was upgraded, or whose body ends with it."""
    if answer.status != 101 and answer.headers.get("transfer-encoding"):
        async with contextlib.aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
        return
    while chunk := await answer.reader.read(MAX_HEAD):
        yield chunk
