"""What was measured, as tables: each figure for both managers, the ratio, and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from bench.logs import LINES_PER_SECOND, Followed
from bench.logs import TASKS as LOG_TASKS

Size = tuple[int, int]
RACE_TARGETS: Mapping[Size, float] = {(2_000, 100): 1.0, (20_000, 1_000): 0.2}
SMALL, LARGE = (2_000, 100), (20_000, 1_000)


@dataclass(slots=True)
class Measured:
    """Figures by side. What was not measured, or failed, is missing."""

    sides: Sequence[str]
    races: dict[Size, dict[str, list[float]]] = field(default_factory=dict)
    """Seconds, CPU seconds and MB of the manager, CPU seconds of the workers."""
    latency: dict[str, float] = field(default_factory=dict)
    idle: dict[str, tuple[float, float]] = field(default_factory=dict)
    containers: dict[str, float] = field(default_factory=dict)
    followed: Followed | None = None

    def seconds(self, size: Size) -> dict[str, float]:
        """Seconds of one race by side."""
        return {side: figures[0] for side, figures in self.races.get(size, {}).items()}

    def growth(self) -> dict[str, float]:
        """Seconds a task in the largest race against the smallest of the standard sizes."""
        small, large = self.seconds(SMALL), self.seconds(LARGE)
        return {
            side: (large[side] / LARGE[0]) / (small[side] / SMALL[0])
            for side in self.sides
            if side in small and side in large
        }


def ratio(values: Mapping[str, float]) -> float | None:
    """Ours against Docker's."""
    ours, docker = values.get("ours"), values.get("docker")
    return ours / docker if ours is not None and docker else None


def print_report(console: Console, measured: Measured) -> None:
    """Print what there is."""
    if measured.races:
        console.print(_races(measured))
    console.print(_figures(measured))


def _races(measured: Measured) -> Table:
    table = Table(title="From service create to all RUNNING", title_justify="left")
    for name in ("tasks / workers", "manager"):
        table.add_column(name)
    for name in ("seconds", "µs a task", "manager CPU s", "manager MB", "workers CPU s", "ours / docker"):
        table.add_column(name, justify="right")
    for (tasks, nodes), sides in measured.races.items():
        quotient = ratio(measured.seconds((tasks, nodes)))
        for side, (seconds, cpu, mb, own) in sides.items():
            table.add_row(
                f"{tasks} / {nodes}",
                side,
                f"{seconds:.2f}",
                f"{1e6 * seconds / tasks:.0f}",
                f"{cpu:.2f}",
                f"{mb:.0f}",
                f"{own:.2f}",
                f"{quotient:.2f}" if quotient is not None and side == "ours" else "",
            )
        table.add_section()
    return table


def _figures(measured: Measured) -> Table:
    table = Table(title="Figures", title_justify="left")
    table.add_column("figure")
    for name in ("docker", "ours", "ours / docker", "target", ""):
        table.add_column(name, justify="right")

    def row(figure: str, values: Mapping[str, float], form: str, target: str, reached: bool | None) -> None:
        if not values:
            return
        cells = [form.format(values[side]) if side in values else "" for side in ("docker", "ours")]
        quotient = ratio(values)
        verdict = "" if reached is None else "[green]reached[/green]" if reached else "[red]missed[/red]"
        table.add_row(figure, *cells, f"{quotient:.2f}" if quotient is not None else "", target, verdict)

    for size, limit in RACE_TARGETS.items():
        values = measured.seconds(size)
        quotient = ratio(values)
        row(
            f"all RUNNING, {size[0]} tasks on {size[1]} workers, s",
            values,
            "{:.2f}",
            f"ratio ≤ {limit}",
            None if quotient is None else quotient <= limit,
        )
    growth = measured.growth()
    row("s per task, largest / smallest", growth, "{:.2f}", "≤ 1.5", _at_most(growth, 1.5))
    memory = {side: figures[2] for side, figures in measured.races.get(LARGE, {}).items()}
    row("memory at 20000 on 1000, MB", memory, "{:.0f}", "≤ 700", _at_most(memory, 700))
    single = {side: 1000 * seconds for side, seconds in measured.latency.items()}
    row("create to RUNNING, one task, median, ms", single, "{:.1f}", "≤ 60", _at_most(single, 60))
    quotient = ratio(measured.containers)
    row(
        "20 containers on one engine, s",
        measured.containers,
        "{:.2f}",
        "ratio ≤ 1.0",
        None if quotient is None else quotient <= 1.0,
    )
    cpu = {side: figures[0] for side, figures in measured.idle.items()}
    row("idle manager, % of a core", cpu, "{:.2f}", "≤ 2", _at_most(cpu, 2))
    resident = {side: figures[1] for side, figures in measured.idle.items()}
    row("idle manager, MB", resident, "{:.0f}", "≤ 120", _at_most(resident, 120))
    if measured.followed is not None:
        _add_followed(row, measured.followed)
    return table


def _add_followed(row: Callable[[str, Mapping[str, float], str, str, bool | None], None], found: Followed) -> None:
    what = f"{LINES_PER_SECOND} lines/s of {LOG_TASKS} tasks followed"
    row(f"{what}, lines lost of {found.printed}", {"ours": found.lost}, "{:.0f}", "0", found.lost == 0)
    row(f"{what}, agent, cores", {"ours": found.agent_cores}, "{:.2f}", "≤ 0.5", found.agent_cores <= 0.5)
    row(f"{what}, manager, cores", {"ours": found.manager_cores}, "{:.2f}", "", None)
    row(f"{what}, reader, cores", {"ours": found.reader_cores}, "{:.2f}", "", None)
    row(f"{what}, seconds behind", {"ours": found.behind_seconds}, "{:.1f}", "", None)


def _at_most(values: Mapping[str, float], limit: float) -> bool | None:
    """Whether ours is within the limit; None when it was not measured."""
    return values["ours"] <= limit if "ours" in values else None
