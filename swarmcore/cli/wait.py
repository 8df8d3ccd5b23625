"""`--wait`: follow a service until it runs as asked, with a bar for each slot on a terminal and lines elsewhere.

Asks again and again and changes nothing, so ending it leaves the service as it is. Writes to stderr: stdout has the id.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import click
import grpc

from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Service
from swarmcore.api.types_pb2 import UpdateStatus
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import CallError, Manager
from swarmcore.cli.lookup import Names
from swarmcore.cli.progress import OUTDATED, STAGES, Progress, progress
from swarmcore.cli.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

POLL_SECONDS = 0.25
POLL_SHARE = 4
"""Rest at least so many times as long as asking took, so that following a large service is no load."""
PATIENCE_SECONDS = 60.0
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
ROWS_AROUND = 4


class Display(Protocol):
    """Shows progress until it is closed."""

    def show(self, service: Service, state: Progress) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


class PlainDisplay:
    """A line whenever something changed."""

    def __init__(self) -> None:
        self._last: tuple[str, ...] = ()

    def show(self, service: Service, state: Progress) -> None:
        name = service.spec.annotations.name
        lines = [summary(service, state)]
        lines += dict.fromkeys(f"{name}: {clean(slot.error)}" for slot in state.slots if slot.error)
        for line in lines:
            if line not in self._last:
                self.say(line)
        self._last = tuple(lines)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class LiveDisplay:
    """Bars that are drawn anew in place."""

    def __init__(self, names: Names) -> None:
        from rich.console import Console

        self._names = names
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None

    def show(self, service: Service, state: Progress) -> None:
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(self._draw(service, state), refresh=True)

    def _draw(self, service: Service, state: Progress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        name = service.spec.annotations.name
        room = max(self._console.height - ROWS_AROUND, 3)
        slots, rest = state.slots, 0
        if len(slots) > room:
            # Those that are still on their way, and of these the ones with something to say first.
            waiting = sorted((slot for slot in slots if not slot.is_done), key=lambda slot: not slot.error)
            slots, rest = tuple(waiting[:room]), len(waiting[room:])
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="ellipsis", no_wrap=True)
        for slot in slots:
            place = slot.key if slot.key.isdigit() else self._names.node(slot.key)
            bar = ProgressBar(total=len(STAGES) - 1, completed=slot.stage, width=16)
            style = "green" if slot.is_done else "red" if slot.has_failed else "yellow" if slot.error else "default"
            words = clean(slot.error) or (self._names.node(slot.node_id) if slot.key.isdigit() else "")
            grid.add_row(Text(f"{name}.{place}"), bar, Text(slot.state.ljust(9), style=style), Text(words, style="dim"))
        lines: list[RenderableType] = [grid] if slots else []
        if rest:
            lines.append(Text(f"… and {rest} more on their way", style="dim"))
        lines.append(Text(summary(service, state), style="bold"))
        return Group(*lines)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def summary(service: Service, state: Progress) -> str:
    """One line on the whole service."""
    line = f"{service.spec.annotations.name}: {state.done}/{len(state.slots)} running"
    if service.spec.WhichOneof("mode") in ("replicated_job", "global_job"):
        line = f"{service.spec.annotations.name}: {state.done}/{len(state.slots)} complete"
    if outdated := sum(slot.state == OUTDATED for slot in state.slots):
        line += f", {outdated} to update"
    if state.surplus:
        line += f", {state.surplus} to stop"
    return f"{line}; {state.note}" if state.note else line


def wait_until_converged(
    to: Manager,
    service: Service,
    *,
    display: Display | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the service runs as asked; raises CliError with the reason where it will not."""
    shown = display or (LiveDisplay(Names(to)) if sys.stderr.isatty() else PlainDisplay())
    name = service.spec.annotations.name
    try:
        _follow(to, service, shown, sleep, monotonic)
    except KeyboardInterrupt:
        shown.close()
        shown.say(
            f"Stopped waiting. The service stays as it is: `swarmctl service inspect {name}` shows how far it is."
        )
        raise click.exceptions.Exit(130) from None
    finally:
        shown.close()


def _follow(
    to: Manager,
    service: Service,
    shown: Display,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> None:
    wants_rollback = service.update_status.state == UpdateStatus.ROLLBACK_STARTED
    # One look can come before the manager's first step: an update's is seen in its status, a global service's in tasks.
    looks_needed = 2 if service.HasField("previous_spec") or service.spec.WhichOneof("mode") == "global" else 1
    looks, answered, is_silent = 0, monotonic(), False
    filters = pb.ListTasksRequest.Filters(service_ids=[service.id])
    while True:
        asked = monotonic()
        try:
            now = to.call(to.control.GetService, pb.GetServiceRequest(service_id=service.id)).service
            tasks = to.call(to.control.ListTasks, pb.ListTasksRequest(filters=filters)).tasks
        except CallError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                raise CliError(f"service {service.spec.annotations.name} was removed meanwhile") from None
            if error.code not in _PASSING or monotonic() - answered > PATIENCE_SECONDS:
                raise
            if not is_silent:
                shown.say(f"The manager does not answer; asking again for {PATIENCE_SECONDS:g} s.")
            is_silent = True
            sleep(POLL_SECONDS * POLL_SHARE)
            continue
        answered, is_silent = monotonic(), False
        state = progress(now, tasks, wants_rollback=wants_rollback)
        shown.show(now, state)
        if state.failure:
            raise CliError(f"{state.failure} (see `swarmctl service inspect -a {now.spec.annotations.name}`)")
        looks = looks + 1 if state.is_converged else 0
        if looks >= looks_needed:
            return
        sleep(max(POLL_SECONDS, POLL_SHARE * (answered - asked)))
