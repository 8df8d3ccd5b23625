"""Runs checks without pytest, one after another, each with an event loop of its own, and tells what came of them."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from swarmcore.testing.executor_contract.subject import Subject

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check."""

    contract: type
    """The class that has the check."""
    check: str
    """The name of its method."""
    seconds: float
    error: Exception | None

    @property
    def fact(self) -> str:
        """What the check is about, in words."""
        return self.check.removeprefix("test_").replace("_", " ")


def checks_of(contract: type) -> list[tuple[type, str]]:
    """The checks of a contract with the class that has each, in the order in which they are written."""
    found: dict[str, type] = {}
    for kind in contract.__mro__:
        for name, member in vars(kind).items():
            if name.startswith("test_") and inspect.iscoroutinefunction(member):
                found.setdefault(name, kind)
    return [(kind, name) for name, kind in found.items()]


def run_check(
    contract: type, check: str, make_subject: Callable[[], Subject], *, new_loop: LoopFactory | None = None
) -> Result:
    """Run one check on a subject of its own."""
    began = time.monotonic()
    error: Exception | None = None
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(getattr(contract(), check)(make_subject()))
    except Exception as raised:  # noqa: BLE001 - the border: what a check raises is its result
        error = raised
    return Result(contract=contract, check=check, seconds=time.monotonic() - began, error=error)


def run_checks(
    contract: type, make_subject: Callable[[], Subject], *, new_loop: LoopFactory | None = None
) -> Iterator[Result]:
    """Run all checks of a contract; a result as soon as there is one."""
    for kind, check in checks_of(contract):
        yield run_check(kind, check, make_subject, new_loop=new_loop)
