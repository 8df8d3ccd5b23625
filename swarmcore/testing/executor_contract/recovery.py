"""Checks of what an agent finds again after it was restarted, or killed."""

from __future__ import annotations

from swarmcore.testing.executor_contract.case import case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.program import Exit, Pause, Program, exits, runs
from swarmcore.testing.executor_contract.subject import Subject

MAX_HANDLE_BYTES = 64 * 1024


class RecoveryContract:
    """Tasks outlive the agent, and the next one takes them up where they are."""

    pytestmark = in_a_loop

    async def test_what_runs_outlives_the_executor(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(runs())
            before = await case.run_of(made.task)

            await case.soon(made.controller.aclose(), "aclose of the controller")
            await case.soon(case.executor.aclose(), "aclose of the executor")

            assert await subject.running(made.task) == before, "the task ended, or began anew, with its executor"

    async def test_what_runs_is_found_again_and_not_started_anew(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=runs().steps, on_signal={"TERM": (Exit(31),)}))
            before = await case.run_of(made.task)
            later = await case.another_executor()

            found = await case.found(later, made.task, made.controller.handle)

            assert await subject.running(made.task) == before, "the task was started anew when it was found again"
            await case.step(found.controller.shutdown, "shutdown of a task found again")
            code = await case.end_of(found)
            assert code == 31, f"a task found again ended with 31; wait tells {code}"

    async def test_what_ran_when_the_agent_was_killed_is_found_again(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            program = Program(steps=runs().steps, on_signal={"TERM": (Exit(32),)})
            tasks = [subject.make_task(program) for _ in range(3)]
            handles = await subject.start_and_die(tasks)
            for task in tasks:
                await case.ready(task, program)
            before = [await case.run_of(task) for task in tasks]

            found = [await case.found(case.executor, task, handles[task.id]) for task in tasks]

            assert [await subject.running(task) for task in tasks] == before, "tasks began anew after the agent's death"
            for each in found:
                await case.step(each.controller.shutdown, "shutdown of a task whose agent was killed")
                code = await case.end_of(each)
                assert code == 32, f"a task whose first agent was killed ended with 32; wait tells {code}"

    async def test_what_ended_while_the_agent_was_away_tells_its_exit_code(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.started(Program(steps=(Pause(0.5), Exit(33))))

            async def has_ended() -> bool:
                return await subject.running(made.task) is None

            await case.until(has_ended, "the task ends by itself, without its agent")
            found = await case.found(await case.another_executor(), made.task, made.controller.handle)

            code = await case.end_of(found)
            assert code == 33, f"a task ended with 33 while the agent was away; wait tells {code}"

    async def test_what_was_prepared_is_found_again_and_can_be_started(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(exits(34))
            found = await case.found(await case.another_executor(), made.task, made.controller.handle)

            await case.step(found.controller.start, "start of a task found again")

            code = await case.end_of(found)
            assert code == 34, f"a task found again when it was prepared ended with 34; wait tells {code}"

    async def test_a_task_is_found_again_without_its_handle(self, subject: Subject) -> None:
        """The agent's own state may be lost where the tasks are not."""
        async with case_of(subject) as case:
            made = await case.started(runs())

            await case.found(await case.another_executor(), made.task, None)

    async def test_nothing_is_found_of_what_was_never_made(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            found = await case.recovered(case.executor, subject.make_task(runs()), None)

            assert found is None, "recover found a task that was never made"

    async def test_nothing_is_found_of_what_was_removed(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            made = await case.prepared(runs())
            handle = made.controller.handle
            await case.removed(made)

            found = await case.recovered(case.executor, made.task, handle)

            assert found is None, "recover found a task that was removed"

    async def test_what_was_found_again_is_removed_to_the_last_bit(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            before = await subject.leftovers()
            made = await case.started(Program(steps=runs().steps, scratch=True))
            found = await case.found(await case.another_executor(), made.task, made.controller.handle)

            await case.removed(found)

            more = await subject.leftovers() - before
            assert not more, f"left over after the removal of a task that was found again: {sorted(more)}"

    async def test_a_handle_is_small(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            handle = (await case.started(runs())).controller.handle

            assert handle is None or isinstance(handle, bytes), f"the handle is a {type(handle).__name__}, not bytes"
            assert len(handle or b"") <= MAX_HANDLE_BYTES, f"the handle has {len(handle or b'')} bytes"
