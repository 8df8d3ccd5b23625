"""Executors that are wrong in one thing about commands beside a task, or about what a task uses."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from swarmcore.plugin.executor import ExecOptions, ExecSession, TaskUsage, TemporaryError
from swarmcore.testing.executor_contract.memory import Box, ModelController
from swarmcore.testing.executor_contract.memory.commands import ModelCommand
from swarmcore.testing.executor_contract.mutants.corpus import controller
from swarmcore.testing.executor_contract.program import Program


class SpoiledCommands(ModelController):
    """Its commands are of another kind."""

    command_kind: ClassVar[type[ModelCommand]] = ModelCommand

    def make_command(self, box: Box, program: Program, options: ExecOptions) -> ExecSession:
        return self.command_kind(box, program, options)


class OneStreamCommand(ModelCommand):
    def print(self, stream: int, data: bytes) -> None:
        super().print(1, data)


@controller("test_a_command_tells_what_it_writes_by_stream_and_its_exit_code")
class MixesStreams(SpoiledCommands):
    command_kind = OneStreamCommand


class ShortInputCommand(ModelCommand):
    async def write(self, data: bytes) -> None:
        await super().write(data[:4096])


@controller("test_a_command_reads_all_of_its_input")
class CutsInput(SpoiledCommands):
    command_kind = ShortInputCommand


@controller("test_a_command_without_input_does_not_wait_for_any")
class AlwaysHasInput(SpoiledCommands):
    def make_command(self, box: Box, program: Program, options: ExecOptions) -> ExecSession:
        return super().make_command(box, program, replace(options, stdin=True))


@controller("test_a_command_has_the_variables_that_it_is_given")
class CutsVariables(SpoiledCommands):
    def make_command(self, box: Box, program: Program, options: ExecOptions) -> ExecSession:
        cut = ["=".join(entry.split("=")[:2]) for entry in options.env]
        return super().make_command(box, program, replace(options, env=cut))


@controller("test_a_command_on_a_terminal_has_one_stream")
class NoTerminal(SpoiledCommands):
    def make_command(self, box: Box, program: Program, options: ExecOptions) -> ExecSession:
        return super().make_command(box, program, replace(options, tty=False))


@controller("test_a_command_that_does_not_exist_is_said")
class RunsNothing(SpoiledCommands):
    async def exec(self, options: ExecOptions) -> ExecSession:
        if self.box is not None and self.box.is_running and self.engine.programs[options.command[0]].is_missing:
            return self.make_command(self.box, Program(steps=()), options)
        return await super().exec(options)


@controller("test_a_task_that_does_not_run_takes_no_command")
class RunsAnywhere(SpoiledCommands):
    async def exec(self, options: ExecOptions) -> ExecSession:
        if self.box is not None and not self.box.is_running:
            return self.make_command(self.box, self.engine.programs[options.command[0]], options)
        return await super().exec(options)


class DeafCommand(ModelCommand):
    async def signal(self, name: str) -> None:
        self.end(143)


@controller("test_a_signal_reaches_a_command")
class AlwaysKills(SpoiledCommands):
    command_kind = DeafCommand


class LastingCommand(ModelCommand):
    async def aclose(self) -> None:
        """Nothing is ended but by the task's own end."""


@controller("test_closing_a_command_ends_its_output")
class ClosesNothing(SpoiledCommands):
    command_kind = LastingCommand


class OutlivingCommand(ModelCommand):
    def end(self, code: int) -> None:
        if code != 137 or self._is_closed:
            super().end(code)

    _is_closed: bool = False

    async def aclose(self) -> None:
        self._is_closed = True
        await super().aclose()


@controller("test_a_command_does_not_outlive_its_task")
class LeavesCommands(SpoiledCommands):
    command_kind = OutlivingCommand


@controller("test_commands_do_not_wait_for_each_other")
class FewAtOnce(SpoiledCommands):
    async def exec(self, options: ExecOptions) -> ExecSession:
        running = [each for each in (self.box.commands if self.box is not None else ()) if each.runs]
        if len(running) > 4:
            raise TemporaryError("too many commands")
        return await super().exec(options)


class LethalCommand(ModelCommand):
    def end(self, code: int) -> None:
        was_running = self.runs
        super().end(code)
        if was_running and code == 1 and isinstance(self.box, Box):
            self.box.end(1)


@controller("test_a_command_leaves_the_task_as_it_was")
class EndsTheTask(SpoiledCommands):
    command_kind = LethalCommand


# What a task uses


@controller("test_what_a_running_task_uses_is_told")
class TellsNothing(ModelController):
    def usage_of(self, box: Box) -> TaskUsage:
        return TaskUsage()


@controller("test_no_figure_is_below_zero")
class NegativeMemory(ModelController):
    def usage_of(self, box: Box) -> TaskUsage:
        return replace(super().usage_of(box), memory_bytes=-4096)


@controller("test_processor_time_never_falls")
class FallingTime(ModelController):
    def usage_of(self, box: Box) -> TaskUsage:
        used = super().usage_of(box)
        return replace(used, cpu_seconds=1 / (used.cpu_seconds or 1))


@controller("test_a_task_that_was_removed_uses_nothing")
class RemembersUsage(ModelController):
    last: TaskUsage = TaskUsage(cpu_seconds=1.0)

    async def usage(self) -> TaskUsage:
        if self.box is None:
            return self.last
        return await super().usage()
