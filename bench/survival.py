"""What managers must survive, measured: `python -m bench.survival`, the second half of `make bench`.

Groups of three managers on this machine: failover beside Docker's own in the same run, what a commit costs, a restart
and a new manager with 100 000 tasks, memory without a quorum, and elections that must not be. `--long` takes as many
samples as the targets are written for; without it each figure comes from a shorter run of the same kind.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.failover import Failovers, failovers, percentile, summary
from bench.groups import Group, docker_group, own_group
from bench.inside import catch_up, commits, followers, leading, updates
from bench.large import TASKS, fill
from bench.standing import MINUTES, elections_in_create, elections_on_busy_machine, no_quorum, restart
from swarmcore.testing.engines import missing_engine, missing_namespaces
from swarmcore.testing.faults import short_folder

PARTS = ("failover", "commit", "updates", "restart", "catchup", "no-quorum", "elections")
WRITERS = 100
WRITES_PER_SECOND = 100.0
SNAPSHOT_SECONDS = 5.0
CREATED_TASKS, WORKERS = 20_000, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of everything is measured."""

    idle_kills: int
    busy_kills: int
    stops: int
    docker_ends: int
    """In each way, but for those under load: a group of Docker's can be gone for most of a minute then."""
    docker_busy_kills: int
    commits: int
    updates_seconds: float
    catch_up_before: float
    no_quorum_seconds: float
    busy_seconds: float


SHORT = Amounts(
    idle_kills=10, busy_kills=10, stops=10, docker_ends=2,
    docker_busy_kills=1, commits=200, updates_seconds=5.0, catch_up_before=10.0,
    no_quorum_seconds=30.0, busy_seconds=60.0,
)  # fmt: skip
LONG = Amounts(
    idle_kills=30, busy_kills=30, stops=30, docker_ends=10,
    docker_busy_kills=10, commits=1000, updates_seconds=20.0, catch_up_before=20.0,
    no_quorum_seconds=600.0, busy_seconds=600.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    docker: str
    ours: str
    ratio: float | None
    target: str
    is_reached: bool | None


@dataclass(slots=True)
class Report:
    """Figures as they come; a part that fails is reported and does not end the others."""

    console: Console
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(
        self, name: str, ours: str, target: str, is_reached: bool | None, docker: str = "", ratio: float | None = None
    ) -> None:
        self.rows.append(Row(name, docker, ours, ratio, target, is_reached))

    async def part(self, name: str, measure: Callable[[], Awaitable[None]]) -> None:
        self.console.print(f"[dim]{name}: load {os.getloadavg()[0]:.1f} …[/dim]")
        try:
            await measure()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            text = str(error).splitlines()
            self.failures.append(f"{name}: {type(error).__name__}: {text[-1] if text else 'no more is known'}")

    def print(self) -> None:
        table = Table(title="Managers that survive", title_justify="left")
        table.add_column("figure")
        for title in ("docker", "ours", "ours / docker", "target", ""):
            table.add_column(title, justify="right")
        for row in self.rows:
            verdict = {None: "", True: "[green]reached[/green]", False: "[red]missed[/red]"}[row.is_reached]
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
            table.add_row(row.name, row.docker, row.ours, ratio, row.target, verdict)
        self.console.print(table)
        for failure in self.failures:
            self.console.print(f"[red]failed[/red]  {failure}")


async def _failover(report: Report, amounts: Amounts, with_docker: bool) -> None:
    sides: dict[str, Callable[[Path], AbstractAsyncContextManager[Group]]] = {"ours": own_group}
    if with_docker:
        sides = {"docker": docker_group, "ours": own_group}
    found: dict[str, Failovers] = {}
    for side, group in sides.items():
        report.console.print(f"[dim]failover: {side} …[/dim]")
        is_ours = side == "ours"
        with short_folder() as folder:
            async with group(folder) as managers:
                found[side] = await failovers(
                    managers,
                    idle_kills=amounts.idle_kills if is_ours else amounts.docker_ends,
                    busy_kills=amounts.busy_kills if is_ours else amounts.docker_busy_kills,
                    stops=amounts.stops if is_ours else amounts.docker_ends,
                )
        for text, count in found[side].refusals.most_common(5):
            report.console.print(f"[dim]  {side}: {count} calls were refused: {text}[/dim]")
    ours, docker = found["ours"], found.get("docker")
    for what, kind, limit in (
        ("leader killed, idle", "idle_kills", 1.5),
        ("leader killed, 100 writes/s", "busy_kills", 1.5),
        ("leader stopped", "stops", 0.3),
    ):
        values: list[float] = getattr(ours, kind)
        others: list[float] = getattr(docker, kind) if docker is not None else []
        worst = percentile(values, 0.99)
        report.add(
            f"{what}: next write, s, median / p99",
            summary(values),
            f"p99 ≤ {limit}",
            worst <= limit,
            docker=summary(others) if others else "",
            ratio=worst / percentile(others, 0.99) if others else None,
        )
    report.add(
        "acknowledged writes lost",
        f"{ours.lost} of {ours.acknowledged}",
        "0",
        ours.lost == 0,
        docker=f"{docker.lost} of {docker.acknowledged}" if docker is not None else "",
    )


async def _inside(report: Report, amounts: Amounts, parts: set[str]) -> None:
    with short_folder() as folder:
        async with leading(folder / "m1") as leader, followers(leader, folder, 2):
            if "commit" in parts:
                took = await commits(leader, folder, amounts.commits)
                report.add(
                    "commit, one writer, three managers, less the disk, median, ms",
                    f"{1000 * took.rest:.2f} ({1000 * took.write:.2f} - {1000 * took.disk:.2f})",
                    "≤ 3",
                    took.rest <= 0.003,
                )
            if "updates" in parts:
                rate = await updates(leader, WRITERS, amounts.updates_seconds)
                report.add("durable updates/s, 100 writers, three managers", f"{rate:.0f}", "≥ 3000", rate >= 3000)


async def _large(report: Report, amounts: Amounts, parts: set[str]) -> None:
    with short_folder() as folder:
        async with leading(folder / "m1") as leader:
            await fill(leader.store)
            # What it writes down by itself then is not what is measured.
            await asyncio.sleep(SNAPSHOT_SECONDS)
        if "restart" in parts:
            seconds = await restart(folder / "m1")
            report.add(
                f"restart with {TASKS} tasks, until a write is agreed, s", f"{seconds:.1f}", "≤ 15", seconds <= 15
            )
        if "catchup" in parts:
            async with leading(folder / "m1") as leader, followers(leader, folder, 1):
                await asyncio.sleep(SNAPSHOT_SECONDS)
                late = await catch_up(leader, folder, amounts.catch_up_before, WRITES_PER_SECOND)
            report.add(
                f"new manager has {TASKS} tasks and a vote, s", f"{late.seconds:.1f}", "≤ 20", late.seconds <= 20
            )
            ratio = late.meanwhile / late.before
            report.add(
                "leader's p99 write meanwhile, against before",
                f"{ratio:.1f} ({1000 * late.meanwhile:.0f} / {1000 * late.before:.0f} ms)",
                "≤ 2",
                ratio <= 2,
            )


async def _no_quorum(report: Report, amounts: Amounts) -> None:
    with short_folder() as folder:
        found = await no_quorum(folder, amounts.no_quorum_seconds)
    measured = f"{found.grown_mb:.1f} in {found.seconds:.0f} s"
    is_whole = found.seconds >= 60 * MINUTES - 1
    report.add(
        "memory grown without quorum, 10 minutes, MB",
        measured if is_whole else f"{found.in_ten_minutes:.1f} at this pace ({measured})",
        "≤ 50",
        found.in_ten_minutes <= 50,
    )
    report.console.print(f"[dim]  meanwhile {found.refused} writes were refused and {found.reads} reads served[/dim]")


async def _elections(report: Report, amounts: Amounts) -> None:
    with short_folder() as folder:
        async with own_group(folder) as group:
            count = await elections_in_create(group, CREATED_TASKS, WORKERS)
            report.add(f"elections in a create of {CREATED_TASKS} tasks", str(count), "0", count == 0)
            count = await elections_on_busy_machine(group, amounts.busy_seconds)
            minutes = amounts.busy_seconds / 60
            report.add(f"elections in {minutes:g} min with all cores at 100 %", str(count), "0", count == 0)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, print the report, return the exit code."""
    amounts = LONG if options.long else SHORT
    report, parts = Report(console), set(options.parts)
    if "failover" in parts:
        await report.part("failover", partial(_failover, report, amounts, not options.only))
    if parts & {"commit", "updates"}:
        await report.part("commit and updates", partial(_inside, report, amounts, parts))
    if parts & {"restart", "catchup"}:
        await report.part(f"{TASKS} tasks", partial(_large, report, amounts, parts))
    if "no-quorum" in parts:
        await report.part("no quorum", partial(_no_quorum, report, amounts))
    if "elections" in parts:
        await report.part("elections", partial(_elections, report, amounts))
    report.print()
    return 1 if report.failures else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.survival", description="What managers must survive.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--long", action="store_true", help="as many samples and minutes as the targets name: an hour")
    parser.add_argument("--only", choices=["ours"], help="failover without Docker's managers beside ours")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 150)
    # A manager runs in this process, and what it warns of while others are killed is no news.
    logging.basicConfig(level=logging.ERROR)
    missing = missing_engine() or missing_namespaces()
    if missing is not None and not options.only:
        console.print(f"Docker's side needs an engine, and {missing}: measuring ours alone")
        options.only = "ours"
    console.print(
        f"[dim]{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}: other work on the machine spoils this[/dim]"
    )
    raise SystemExit(asyncio.run(run(options, console)))


if __name__ == "__main__":
    main()
