"""Work that is cut off between two changes of the disk, as by `kill -9`: for what must be whole at any moment."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

CHANGES = ("write", "fsync", "fdatasync", "rename", "replace", "unlink", "rmdir", "ftruncate", "mkdir", "open")
"""Functions of `os` that change the disk, or come just before something that does."""

DEADLINE = 60.0
"""Seconds that the work may take."""


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own that ends without a last word before the change of number `step`.

    Whether it came to that; False: `work` took fewer steps. Fails where `work` fails. `work` can be pickled.
    """
    process = _processes().Process(target=_work_and_die, args=(step, work))
    process.start()
    process.join(DEADLINE)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the work hung before step {step}")
    assert process.exitcode in (0, 9), f"the work failed before step {step}"
    return process.exitcode == 9


@functools.cache
def _processes() -> ForkServerContext:
    """Processes forked by one that has a single thread: a fork of this one may copy a lock that nobody gives back."""
    context = multiprocessing.get_context("forkserver")
    # Loaded once, instead of in each of them.
    context.set_forkserver_preload([name for name in sys.modules if name.split(".")[0] == "swarmcore"])
    return context


def _work_and_die(step: int, work: Callable[[], object]) -> None:
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for name in CHANGES:
        setattr(os, name, dying(getattr(os, name)))
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)
