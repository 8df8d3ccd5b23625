"""Work that is cut off between two changes of the disk, as by `kill -9`: for what must be whole at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

CHANGES = ("write", "fsync", "fdatasync", "rename", "replace", "unlink", "rmdir", "ftruncate", "mkdir", "open")
"""Functions of `os` that change the disk, or come just before something that does."""


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own that ends without a last word before the change of number `step`.

    Whether it came to that; False: `work` took fewer steps. Fails where `work` fails.
    """
    pid = os.fork()
    if pid == 0:
        _work_and_die(step, work)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), f"the work failed before step {step}"
    return code == 9


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
