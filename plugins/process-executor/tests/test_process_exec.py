"""Commands beside plain processes, with all that makes the process the task's."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from swarmcore_process_executor.executor import ProcessExecutor

from swarmcore.plugin.executor import (
    Controller,
    ExecOptions,
    ExecSession,
    ExecSource,
    ExecutorError,
    UsageSource,
)
from swarmcore.testing.process_tasks import eventually, process_task, shell, started


class Beside:
    """A task that runs, and commands beside it."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    async def start(self, *command: str, **options: Any) -> ExecSession:
        assert isinstance(self.controller, ExecSource)
        return await self.controller.exec(ExecOptions(command=command, **options))

    async def run(self, *command: str, stdin: bytes | None = None, **options: Any) -> tuple[bytes, bytes, int]:
        session = await self.start(*command, stdin=stdin is not None, **options)
        try:
            feeding = asyncio.create_task(_feed(session, stdin)) if stdin is not None else None
            out = {1: b"", 2: b""}
            async for stream, data in session.output():
                out[stream] += data
            if feeding is not None:
                await feeding
            return out[1], out[2], await session.wait()
        finally:
            await session.aclose()


async def _feed(session: ExecSession, data: bytes) -> None:
    await session.write(data)
    await session.close_input()


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    executor = ProcessExecutor(tmp_path)
    controller = await started(executor, process_task("sleep", "86398", env=["COLOUR=blue"]))
    yield Beside(controller)
    await controller.remove()
    await controller.aclose()
    await executor.aclose()


async def test_a_command_has_the_tasks_environment_and_folder_and_its_own_exit_code(beside: Beside) -> None:
    out, err, code = await beside.run("sh", "-c", "echo $COLOUR $SHAPE; pwd; echo no >&2; exit 5", env=["SHAPE=round"])

    assert out.startswith(b"blue round\n") and out.endswith(b"/tasks/task1/work\n")
    assert (err, code) == (b"no\n", 5)


async def test_a_signal_counts_as_128_and_its_number(beside: Beside) -> None:
    assert (await beside.run("sh", "-c", "kill -9 $$"))[2] == 137


async def test_any_amount_of_input_comes_back(beside: Beside) -> None:
    data = os.urandom(3_000_000)

    assert await beside.run("cat", stdin=data) == (data, b"", 0)


async def test_without_input_a_command_reads_nothing(beside: Beside) -> None:
    assert await beside.run("cat") == (b"", b"", 0)


async def test_a_terminal_has_its_size_and_can_be_resized(beside: Beside) -> None:
    session = await beside.start("sh", "-c", "stty size; read x; stty size", tty=True, stdin=True, rows=33, columns=99)
    output = session.output()
    first = (await anext(output))[1]

    await session.resize(11, 22)
    await session.write(b"\n")
    rest = b"".join([data async for _, data in output])

    assert first == b"33 99\r\n" and rest.endswith(b"11 22\r\n")
    assert await session.wait() == 0
    await session.aclose()


async def test_the_last_words_on_a_terminal_are_not_lost(beside: Beside) -> None:
    for number in range(20):
        assert await beside.run("echo", f"word {number}", tty=True) == (b"word %d\r\n" % number, b"", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_command_is_who_the_task_is_under_its_limits(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for folder in [tmp_path, *tmp_path.parents][:-1]:
        folder.chmod(folder.stat().st_mode | 0o011)
    executor = ProcessExecutor(tmp_path)
    task = shell("ulimit -n 77; exec sleep 86398", task_id="task2", user="nobody")
    controller = await started(executor, task)

    pid = (tmp_path / "tasks" / "task2" / "started").read_text().splitlines()[1].split()[0]

    def is_limited() -> bool:
        return re.search(r"Max open files +77 +77 ", Path(f"/proc/{pid}/limits").read_text()) is not None

    await eventually(is_limited)
    out, _, _ = await Beside(controller).run("sh", "-c", "id -u; id -g; ulimit -n")
    await controller.remove()
    await controller.aclose()
    await executor.aclose()

    assert out.split() == [b"%d" % nobody.pw_uid, b"%d" % nobody.pw_gid, b"77"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"command": ["nosuchprogram"]}, "'nosuchprogram': No such file or directory"),
        ({"command": ["/etc/passwd"]}, "'/etc/passwd': Permission denied"),
        ({"command": ["ls"], "dir": "/nosuch"}, "the folder '/nosuch': No such file or directory"),
        ({"command": ["ls"], "user": "root"}, "user: a command beside a plain process runs as the task's user"),
    ],
)
async def test_what_can_not_be_run_says_so(beside: Beside, options: dict[str, Any], complaint: str) -> None:
    before = len(os.listdir("/proc/self/fd"))

    assert isinstance(beside.controller, ExecSource)
    with pytest.raises(ExecutorError, match=complaint):
        await beside.controller.exec(ExecOptions(**options))

    assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_ends_a_command_that_ignores_it_and_leaves_nothing_open(beside: Beside) -> None:
    before = len(os.listdir("/proc/self/fd"))
    session = await beside.start("sh", "-c", "trap '' TERM HUP; echo ready; while :; do sleep 0.1; done", stdin=True)
    output = session.output()
    assert (await anext(output))[1] == b"ready\n"
    waiting = asyncio.create_task(session.wait())
    await asyncio.sleep(0)

    await session.aclose()
    await session.aclose()

    assert await waiting == 137
    await output.aclose()  # type: ignore[attr-defined]
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_signal_reaches_the_command(beside: Beside) -> None:
    session = await beside.start("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done")
    output = session.output()
    await anext(output)

    await session.signal("SIGUSR1")
    with pytest.raises(ExecutorError, match="is not a signal"):
        await session.signal("SIGNOSUCH")

    assert await session.wait() == 9
    await output.aclose()  # type: ignore[attr-defined]
    await session.aclose()


async def test_what_goes_on_in_the_background_does_not_hold_up_the_end(beside: Beside) -> None:
    async with asyncio.timeout(10):
        out, _, code = await beside.run("sh", "-c", "sleep 86397 & echo started")

    assert (out, code) == (b"started\n", 0)


async def test_a_task_is_counted_with_all_that_it_started(beside: Beside) -> None:
    assert isinstance(beside.controller, UsageSource)
    session = await beside.start("sh", "-c", "while :; do :; done")

    async with asyncio.timeout(20):
        while True:
            usage = await beside.controller.usage()
            if usage.cpu_seconds and usage.pids and usage.pids >= 2:
                break
            await asyncio.sleep(0.05)
    await session.aclose()

    assert usage.memory_bytes and usage.memory_bytes > 100_000
