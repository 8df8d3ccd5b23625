"""Checks of commands that are run beside a task: what they write, read, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from swarmcore.plugin.executor import ExecOptions, ExecSession, ExecSource, ExecutorError
from swarmcore.testing.executor_contract.case import Case, Made, begin, case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import (
    READY,
    CopyLines,
    Exit,
    Print,
    PrintVariable,
    Program,
    RunOn,
    prints,
    runs,
)
from swarmcore.testing.executor_contract.subject import Subject

AT_ONCE = 8
LINES = b"".join(b"line %d\n" % number for number in range(2000))
NOT_FOUND = (126, 127)
"""What a shell ends with where it can't run a program; engines that start before they look tell it so."""


class ExecContract:
    """For executors whose controllers can run a command beside the task."""

    pytestmark = in_a_loop

    async def test_a_command_tells_what_it_writes_by_stream_and_its_exit_code(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            program = prints(Print(b"to stdout\n"), Print(b"to stderr\n", stream=2))

            async with command(case, made, Program(steps=(*program.steps, Exit(61)))) as session:
                said, code = await end_of(case, session)

            assert said == {1: b"to stdout\n", 2: b"to stderr\n"}, f"a command wrote to both streams; told is {said}"
            assert code == 61, f"a command ended with 61; told is {code}"

    async def test_a_command_reads_all_of_its_input(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, Program(steps=(CopyLines(),)), stdin=True) as session:
                feeding = begin(_feed(session, LINES))
                said, code = await end_of(case, session)
                await case.soon(feeding, "writing to a command")

            assert said.get(1) == LINES, f"of {len(LINES)} bytes of input {len(said.get(1, b''))} came back"
            assert code == 0, f"a command whose input has ended ended with {code}"

    async def test_a_command_without_input_does_not_wait_for_any(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, Program(steps=(CopyLines(), Exit(62)))) as session:
                _, code = await end_of(case, session)

            assert code == 62, f"a command without input ended with 62; told is {code}"

    async def test_a_command_has_the_variables_that_it_is_given(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, prints(PrintVariable("SHADE")), env=("SHADE=blue=green",)) as session:
                said, _ = await end_of(case, session)

            assert said == {1: b"blue=green\n"}, f"the variable SHADE is blue=green; the command saw {said}"

    async def test_a_command_on_a_terminal_has_one_stream(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, prints(Print(b"one\n"), Print(b"two\n", stream=2)), tty=True) as session:
                said, _ = await end_of(case, session)

            assert set(said) == {1}, f"on a terminal there is stream 1 alone; told are {sorted(said)}"
            assert said[1].replace(b"\r", b"") == b"one\ntwo\n", f"on a terminal the command wrote {said[1]!r}"

    async def test_a_command_that_does_not_exist_is_said(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            said: dict[int, bytes] = {}
            code = None
            try:
                async with command(case, made, Program(is_missing=True)) as session:
                    said, code = await end_of(case, session)
            except ExecutorError as error:
                said = {2: str(error).encode()}

            assert code is None or code in NOT_FOUND, f"a command that does not exist ended with {code}"
            assert b"".join(said.values()).strip(), "nothing says that the command does not exist"

    async def test_a_task_that_does_not_run_takes_no_command(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            prepared = await case.prepared(runs())
            ended = await case.started(runs())
            await case.step(ended.controller.shutdown, "shutdown")
            await case.end_of(ended)

            for made, state in ((prepared, "prepared"), (ended, "ended")):
                is_refused = False
                try:
                    async with command(case, made, runs()):
                        pass
                except ExecutorError:
                    is_refused = True
                assert is_refused, f"a command was run beside a task that is {state}"

    async def test_a_signal_reaches_a_command(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            program = Program(steps=(READY, RunOn()), on_signal={"TERM": (Exit(63),)})

            async with command(case, made, program) as session:
                async with _reading(session) as output:
                    await case.soon(anext(output), "the first words of a command")
                    await case.soon(session.signal("SIGTERM"), "signal")
                    await case.soon(_rest_of(output), "the end of a command that was signalled")
                code = await case.soon(session.wait(), "wait of a command")

            assert code == 63, f"a command that ends with 63 on SIGTERM ended with {code}"

    async def test_closing_a_command_ends_its_output(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, runs()) as session, _reading(session) as output:
                await case.soon(anext(output), "the first words of a command")
                reading = begin(_rest_of(output))
                await asyncio.sleep(0.05)
                await case.soon(session.aclose(), "aclose of a command")
                _, pending = await asyncio.wait([reading], timeout=subject.patience)
                await case.cancelled(reading, "reading what a command writes")

            assert not pending, "the output of a command goes on after aclose"

    async def test_a_command_does_not_outlive_its_task(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())

            async with command(case, made, runs()) as session, _reading(session) as output:
                await case.soon(anext(output), "the first words of a command")
                reading = begin(_rest_of(output))
                await case.step(made.controller.remove, "remove")
                _, pending = await asyncio.wait([reading], timeout=subject.patience)
                await case.cancelled(reading, "reading what a command writes")

            assert not pending, "a command goes on after its task was removed"

    async def test_commands_do_not_wait_for_each_other(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            waiting = [
                await open_command(case, made, Program(steps=(CopyLines(),)), stdin=True) for _ in range(AT_ONCE)
            ]
            try:
                async with command(case, made, prints(Print(b"quick\n"))) as session:
                    said, _ = await end_of(case, session)
            finally:
                for each in waiting:
                    await case.soon(each.aclose(), "aclose of a command")

            assert said == {1: b"quick\n"}, f"beside {AT_ONCE} commands another one wrote {said}"

    async def test_a_command_leaves_the_task_as_it_was(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            before = await case.run_of(made.task)

            async with command(case, made, Program(steps=(Exit(1),))) as session:
                await end_of(case, session)

            assert await subject.running(made.task) == before, "the task ended, or began anew, with a command beside it"


@asynccontextmanager
async def command(
    case: Case, made: Made, program: Program, *, stdin: bool = False, tty: bool = False, env: Sequence[str] = ()
) -> AsyncIterator[ExecSession]:
    """A command beside the task; closed at the end of the block."""
    session = await open_command(case, made, program, stdin=stdin, tty=tty, env=env)
    try:
        yield session
    finally:
        await case.soon(session.aclose(), "aclose of a command")


async def open_command(
    case: Case, made: Made, program: Program, *, stdin: bool = False, tty: bool = False, env: Sequence[str] = ()
) -> ExecSession:
    assert isinstance(made.controller, ExecSource), "the controller can't run commands"
    options = ExecOptions(command=case.subject.command_of(program), stdin=stdin, tty=tty, env=env)
    return await case.soon(made.controller.exec(options), "exec")


async def end_of(case: Case, session: ExecSession) -> tuple[dict[int, bytes], int]:
    """All that a command writes by stream, and its exit code."""
    said: dict[int, bytes] = {}

    async def read() -> None:
        async with _reading(session) as output:
            async for stream, data in output:
                said[stream] = said.get(stream, b"") + data

    await case.soon(read(), "the output of a command")
    return said, await case.soon(session.wait(), "wait of a command")


@asynccontextmanager
async def _reading(session: ExecSession) -> AsyncIterator[AsyncIterator[tuple[int, bytes]]]:
    output = session.output()
    try:
        yield output
    finally:
        close = getattr(output, "aclose", None)
        if close is not None:
            await close()


async def _rest_of(output: AsyncIterator[tuple[int, bytes]]) -> None:
    try:
        async for _ in output:
            pass
    except ExecutorError:
        # That it broke off is as good an end.
        pass


async def _feed(session: ExecSession, data: bytes) -> None:
    await session.write(data)
    await session.close_input()
