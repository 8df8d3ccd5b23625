"""What a task's processes use, as the system counts it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from swarmcore.plugin.executor import ExecutorError, TaskUsage
from swarmcore_process_executor.processes import Census

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_CENSUS: Final = Census()


def usage_of(task_id: str, memory_limit: int = 0) -> TaskUsage:
    """The sum over all processes that carry the task's marker. Blocks for as long as a look at each process takes.

    Memory is what is resident, and shared pages count once for each process that has them. Raises ExecutorError where
    there is no process. `memory_limit` is what the task was given, in bytes; 0: none.
    """
    ticks = pages = read = written = count = 0
    for pid in _CENSUS.of(task_id):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                text = file.read()
            fields = text[text.rindex(b")") + 2 :].split()
            # With those of children that have ended and been waited for.
            ticks += sum(int(field) for field in fields[11:15])
            pages += int(fields[21])
            count += 1
            with open(f"/proc/{pid}/io", "rb") as file:
                io = dict(line.split(b": ") for line in file.read().splitlines())
            read += int(io[b"read_bytes"])
            written += int(io[b"write_bytes"])
    if not count:
        raise ExecutorError("the task has no process")
    return TaskUsage(
        cpu_seconds=ticks / TICKS,
        memory_bytes=pages * PAGE,
        memory_limit_bytes=memory_limit,
        block_read_bytes=read,
        block_written_bytes=written,
        pids=count,
    )
