"""`swarmctl task stats`: what tasks use, as a table that is drawn again and again on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Sequence

import click
import grpc

from swarmcore.api.exec_pb2 import StatsRequest, TaskStats
from swarmcore.api.exec_pb2_grpc import TaskAccessStub
from swarmcore.cli.connection import Manager
from swarmcore.cli.logs import TaskNames
from swarmcore.cli.lookup import find_service, find_task
from swarmcore.cli.text import clean, paint, table, uses_colour

HEADERS = ("Task", "ID", "Node", "CPU", "Memory / Limit", "Mem", "Net In / Out", "Block In / Out", "Pids")
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = "\x1b[2J"
SHORT_ID = 12
FORGET_SECONDS = 10.0
RETRY_SECONDS = 0.5
LOST_SECONDS = 60.0
"""How long a manager is looked for before the table is given up."""


def size(value: int) -> str:
    """`512B`, `1.5GiB`: short enough for two in a column."""
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1024
    return f"{number:.3g}PiB"


def row(stats: TaskStats, task: str, node: str, *, truncate: bool) -> tuple[str, ...]:
    """One line of the table; `-` for what is not known. Pure."""

    def known(name: str) -> str:
        return size(getattr(stats, name)) if stats.HasField(name) else "-"  # type: ignore[arg-type]

    def pair(first: str, second: str) -> str:
        if not stats.HasField(first) and not stats.HasField(second):  # type: ignore[arg-type]
            return "-"
        return f"{known(first)} / {known(second)}"

    memory = percent = "-"
    if stats.HasField("memory_bytes"):
        limit = stats.memory_limit_bytes
        memory = f"{size(stats.memory_bytes)} / {size(limit)}" if limit else size(stats.memory_bytes)
        percent = f"{100 * stats.memory_bytes / limit:.1f}%" if limit else "-"
    return (
        task,
        stats.task_id[:SHORT_ID] if truncate else stats.task_id,
        node,
        f"{stats.cpu_percent:.2f}%" if stats.HasField("cpu_percent") else "-",
        memory,
        percent,
        pair("network_received_bytes", "network_sent_bytes"),
        pair("block_read_bytes", "block_written_bytes"),
        str(stats.pids) if stats.HasField("pids") else "-",
    )


def screen(lines: Sequence[str], width: int, height: int) -> list[str]:
    """What of these lines fits on a terminal of this size. Pure."""
    room = max(2, height - 1)
    shown = list(lines)
    if len(shown) > room:
        shown[room - 1 :] = [f"… and {len(lines) - room + 1} more: --no-stream prints all"]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in shown]


def show_stats(
    to: Manager, *, tasks: Sequence[str], services: Sequence[str], once: bool, truncate: bool, output: str
) -> None:
    """Print what the tasks use: one table, or on a terminal one that is kept up to date until ctrl-C."""
    request = StatsRequest(once=once or not sys.stdout.isatty() or output == "json")
    names = TaskNames(to)
    for typed in tasks:
        names.know(task := find_task(to, typed))
        request.task_ids.append(task.id)
    request.service_ids.extend(find_service(to, typed).id for typed in services)
    for service_id in request.service_ids or ([] if tasks else [""]):
        names.load(service_id)
    _Board(to, names, request, truncate=truncate, as_json=output == "json").run()


class _Board:
    """The newest sample of each task."""

    def __init__(self, to: Manager, names: TaskNames, request: StatsRequest, *, truncate: bool, as_json: bool) -> None:
        self._to = to
        self._names = names
        self._request = request
        self._truncate = truncate
        self._as_json = as_json
        self._samples: dict[str, TaskStats] = {}
        self._sampled_at: dict[str, float] = {}
        self._warnings: dict[str, None] = {}
        self._answers = 0

    def run(self) -> None:
        if self._request.once:
            try:
                self._read(draws=False)
            except grpc.RpcError as error:
                raise self._to.failure(error) from None
            self._print()
            return
        click.echo(CLEAR, nl=False)
        lost_at: float | None = None
        while True:
            before = self._answers
            try:
                self._read(draws=True)
                return
            except grpc.RpcError as error:
                now = time.monotonic()
                if lost_at is None or self._answers > before:
                    lost_at = now
                # Another manager leads in a moment.
                if error.code() is not grpc.StatusCode.UNAVAILABLE or now - lost_at > LOST_SECONDS:
                    raise self._to.failure(error) from None
            time.sleep(RETRY_SECONDS)

    def _read(self, *, draws: bool) -> None:
        call = TaskAccessStub(self._to.channel).Stats(self._request)
        try:
            for answer in call:
                self._answers += 1
                for stats in answer.stats:
                    self._samples[stats.task_id] = stats
                    self._sampled_at[stats.task_id] = time.monotonic()
                self._note(answer.warnings)
                if draws:
                    self._draw()
        finally:
            call.cancel()

    def _note(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self._warnings[clean(self._names.in_words(warning))] = None

    def _print(self) -> None:
        for warning in self._warnings:
            click.echo(f"Warning: {warning}", err=True)
        if self._as_json:
            from swarmcore.cli.jsonview import to_json

            click.echo(to_json(list(self._samples.values())))
            return
        click.echo(self._table(colour=uses_colour()))

    def _draw(self) -> None:
        old = time.monotonic() - FORGET_SECONDS
        for task_id in [id for id, at in self._sampled_at.items() if at < old]:
            # It has ended, or its node is gone.
            del self._samples[task_id], self._sampled_at[task_id]
        # A line that is too long would take two, and the top would scroll away.
        width, height = shutil.get_terminal_size()
        lines = [*self._table(colour=False).splitlines(), *(f"Warning: {warning}" for warning in self._warnings)]
        lines = screen(lines, width, height)
        if uses_colour():
            lines[:2] = [paint(line, colour) for line, colour in zip(lines, ("bold", "dim"), strict=False)]
        text = "".join(f"{line}{CLEAR_LINE}\n" for line in lines)
        click.echo(HOME + text + CLEAR_BELOW, nl=False, color=True)

    def _table(self, *, colour: bool) -> str:
        rows = []
        for stats in self._samples.values():
            task, node = self._names.names(stats.task_id, "", stats.node_id)
            rows.append(row(stats, task, node, truncate=self._truncate))
        return table(HEADERS, sorted(rows, key=_by_task), colour=colour)


def _by_task(cells: Sequence[str]) -> tuple[str, int, str]:
    service, _, slot = cells[0].rpartition(".")
    return service, int(slot) if slot.isascii() and slot.isdigit() else 0, cells[1]
