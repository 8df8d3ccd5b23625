"""The corpus: a spoiled subject for each check, and how executors get into it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from swarmcore.testing.executor_contract.memory import (
    ModelController,
    ModelExecutor,
    ModelSubject,
)

Make = Callable[[], ModelSubject]
MUTANTS: Final[dict[str, Make]] = {}
"""A spoiled subject for each check, by the check's name."""
FOR_EVER: Final = 1e9
HOUR_NS: Final = 3600 * 10**9


@dataclass(slots=True)
class Litter:
    """What mutants leave in this process; whoever ran them clears it."""

    descriptors: list[int]
    threads: list[tuple[threading.Thread, threading.Event]]

    def add_thread(self) -> threading.Event:
        over = threading.Event()
        thread = threading.Thread(target=over.wait, name="litter", daemon=True)
        thread.start()
        self.threads.append((thread, over))
        return over

    def clear(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        for thread, over in self.threads:
            over.set()
            thread.join()
        self.descriptors.clear()
        self.threads.clear()


LITTER: Final = Litter([], [])


def controller(check: str) -> Callable[[type[ModelController]], type[ModelController]]:
    """Its controllers are spoiled."""

    def register(kind: type[ModelController]) -> type[ModelController]:
        executor: Any = type(f"{kind.__name__}Executor", (ModelExecutor,), {"controller_kind": kind})
        MUTANTS[check] = lambda: ModelSubject(executor)
        return kind

    return register


def executor(check: str) -> Callable[[type[ModelExecutor]], type[ModelExecutor]]:
    """The executor itself is."""

    def register(kind: type[ModelExecutor]) -> type[ModelExecutor]:
        MUTANTS[check] = lambda: ModelSubject(kind)
        return kind

    return register
