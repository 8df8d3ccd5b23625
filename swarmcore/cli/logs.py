"""`swarmctl service logs` and `swarmctl task logs`: what tasks print, from whatever node they run on."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import grpc

from swarmcore.api.log_lines import WARNING_ATTR
from swarmcore.api.logbroker_pb2 import LogMessage, LogSelector, SubscribeLogsRequest
from swarmcore.api.logbroker_pb2_grpc import LogsStub
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import CallError, Manager
from swarmcore.cli.log_lines import SHORT_ID, LogPrinter, Style
from swarmcore.cli.lookup import Names, find_service, find_task
from swarmcore.cli.text import clean
from swarmcore.logbroker.marks import BILLION, Marks
from swarmcore.logbroker.subscription import INCOMPLETE

if TYPE_CHECKING:
    from swarmcore.api.objects_pb2 import Task

RETRY_SECONDS = 0.5
LOST_SECONDS = 60.0
"""How long a follower looks for a manager again before it gives up."""
ID = re.compile(r"[0-9a-z]{25}")
NODE_ID = re.compile(r"\b(node )([0-9a-z]{25})\b")
TASK_ID = re.compile(r"\b(task )([0-9a-z]{25})\b")


def show_logs(
    to: Manager,
    *,
    services: Sequence[str] = (),
    tasks: Sequence[str] = (),
    follow: bool,
    tail: str,
    since: str | None,
    timestamps: bool,
    raw: bool,
    details: bool,
    no_task_ids: bool,
    no_trunc: bool,
) -> None:
    """Print logs until they end, or for ever with `follow`. What could not be had is a warning on stderr."""
    request = SubscribeLogsRequest()
    request.options.follow = follow
    request.options.tail = _tail(tail)
    if since is not None:
        request.options.since.FromNanoseconds(_since(since))
    names = TaskNames(to)
    for typed in services:
        _select(to, names, typed, request.selector)
    for typed in tasks:
        names.know(task := find_task(to, typed))
        request.selector.task_ids.append(task.id)
    style = Style(
        raw=raw,
        timestamps=timestamps,
        details=details,
        task_ids=not no_task_ids,
        truncate=not no_trunc,
        is_together=sys.stdout.isatty() and sys.stderr.isatty(),
        colour=(_colours(sys.stdout.isatty()), _colours(sys.stderr.isatty())),
    )
    _Reader(to, request, LogPrinter(style, names.of), names).run()


def _select(to: Manager, names: TaskNames, typed: str, selector: LogSelector) -> None:
    """A service by name or id, or else a task, as Docker takes both."""
    try:
        selector.service_ids.append(find_service(to, typed).id)
    except CliError as error:
        if typed.isdigit():
            raise CliError(f"{error.message}; the last lines are asked for with --tail {typed}") from None
        if not ID.fullmatch(typed):
            raise
        try:
            names.know(task := find_task(to, typed))
        except CliError:
            raise error from None
        selector.task_ids.append(task.id)


def _tail(text: str) -> int:
    """-1-n on the wire; 0 there is all."""
    if text == "all":
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise click.BadParameter(f"{text!r} is not a number of lines (write it like 100, or all)", param_hint="--tail")
    return -1 - int(text)


def _since(text: str) -> int:
    """Nanoseconds since the epoch."""
    from datetime import UTC, datetime

    from swarmcore.cli.values import duration_nanoseconds

    with contextlib.suppress(ValueError):
        if (length := duration_nanoseconds(text)) >= 0:
            return max(0, time.time_ns() - length)
    try:
        if re.fullmatch(r"\d{1,11}(\.\d{1,9})?", text, re.ASCII):
            whole, _, fraction = text.partition(".")
            return int(whole) * BILLION + int(fraction.ljust(9, "0") or 0)
        moment = datetime.fromisoformat(text)
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * BILLION))
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is neither a length of time (10m, 1h30m) nor a time (2026-01-31T12:00:00Z)", param_hint="--since"
        ) from None


def _colours(is_terminal: bool) -> bool:
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class TaskNames:
    """Names of tasks and nodes, each asked for once."""

    def __init__(self, to: Manager) -> None:
        self._to = to
        self._names = Names(to)
        self._tasks: dict[str, Task] = {}

    def know(self, task: Task) -> None:
        self._tasks[task.id] = task

    def node(self, id: str) -> str:
        return self._names.node(id)

    def in_words(self, text: str) -> str:
        """With names in place of the ids of nodes and tasks."""
        text = NODE_ID.sub(lambda match: match[1] + self._names.node(match[2]), text)
        return TASK_ID.sub(lambda match: match[1] + self._task(match[2]), text)

    def _task(self, id: str) -> str:
        known = self._tasks.get(id)
        if known is None:
            try:
                known = find_task(self._to, id)
            except CliError:
                return id
            self.know(known)
        return f"{self._names.task(known)}.{id[:SHORT_ID]}"

    def of(self, line: LogMessage) -> tuple[str, str]:
        """Of a line's task and of its node."""
        return self.names(line.context.task_id, line.context.service_id, line.context.node_id)

    def names(self, task_id: str, service_id: str, node_id: str) -> tuple[str, str]:
        """Of a task and of its node."""
        if task_id not in self._tasks and service_id:
            # All of the service at once, since most often each of them has something to say.
            self.load(service_id)
        if task_id not in self._tasks:
            # One look-up, then it is known: the task may have been removed, and its line is here all the same.
            from swarmcore.api.objects_pb2 import Task

            try:
                self.know(find_task(self._to, task_id))
            except CliError:
                self.know(Task(id=task_id, service_id=service_id))
        return self._names.task(self._tasks[task_id]), self._names.node(node_id)

    def load(self, service_id: str) -> None:
        """Know all tasks of a service; of all services where it is empty."""
        from swarmcore.api import control_pb2 as pb

        request = pb.ListTasksRequest()
        if service_id:
            request.filters.service_ids.append(service_id)
        try:
            for task in self._to.call(self._to.control.ListTasks, request).tasks:
                self.know(task)
        except CallError:
            return


class _Reader:
    """Reads one stream of lines, and asks for it anew where its manager went away under a follower."""

    def __init__(self, to: Manager, request: SubscribeLogsRequest, printer: LogPrinter, names: TaskNames) -> None:
        self._to = to
        self._request = request
        self._printer = printer
        self._names = names
        self._marks = Marks()
        self._warned: set[str] = set()

    def run(self) -> None:
        lost_at: float | None = None
        while True:
            received = False
            call = LogsStub(self._to.channel).SubscribeLogs(self._request)
            try:
                for message in call:
                    received = True
                    self._print(message.messages)
                return
            except grpc.RpcError as error:
                details = error.details() or ""
                if details.startswith(INCOMPLETE):
                    for reason in details.removeprefix(INCOMPLETE).split(", "):
                        self._warn(reason)
                    return
                now = time.monotonic()
                if received or lost_at is None:
                    lost_at = now
                # A manager cancels a stream that nobody has read for long, as under a pager.
                gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                if not (self._request.options.follow and gone and now - lost_at < LOST_SECONDS):
                    raise self._to.failure(error) from None
            finally:
                call.cancel()
            self._go_on()
            time.sleep(RETRY_SECONDS)

    def _go_on(self) -> None:
        """Ask for what was not read: lines that come a second time are left out."""
        since = self._marks.since_ns
        if since is not None:
            self._request.options.tail = 0
            self._request.options.since.FromNanoseconds(since)
            self._marks.rewind()

    def _print(self, lines: Sequence[LogMessage]) -> None:
        follow = self._request.options.follow
        out: list[bytes] = []
        err: list[bytes] = []
        for line in lines:
            if line.attrs and line.attrs[0].key == WARNING_ATTR:
                self._warn(line.attrs[0].value, once=False)
                continue
            if follow and not self._marks.is_new(line):
                continue
            is_error, data = self._printer.bytes_of(line)
            if (err if is_error else out) or not (out or err):
                (err if is_error else out).append(data)
                continue
            # The other stream has its turn: both are flushed in the order in which lines came.
            _write(out, err)
            (err if is_error else out).append(data)
        _write(out, err)

    def _warn(self, reason: str, *, once: bool = True) -> None:
        text = clean(self._names.in_words(reason))
        if not once or text not in self._warned:
            self._warned.add(text)
            print(f"Warning: {text}", file=sys.stderr, flush=True)


def _write(out: list[bytes], err: list[bytes]) -> None:
    for lines, stream in ((out, sys.stdout), (err, sys.stderr)):
        if lines:
            stream.buffer.write(b"".join(lines))
            stream.buffer.flush()
            lines.clear()
