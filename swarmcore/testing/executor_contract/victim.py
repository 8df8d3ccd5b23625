"""A process that starts tasks by an executor, says so, and waits to be killed. Run by `Subject.start_and_die`."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
from functools import reduce
from typing import Any

from swarmcore.api.objects_pb2 import Task
from swarmcore.plugin.executor import Controller, Dependencies, HostInfo


async def main() -> None:
    order: dict[str, Any] = json.loads(await asyncio.to_thread(sys.stdin.readline))
    module, name = order["factory"]
    kind: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    executor = await kind().create(HostInfo(**order["host"]))
    controllers: dict[str, Controller] = {}
    waits = []
    for text in order["tasks"]:
        task = Task.FromString(base64.b64decode(text))
        controller = controllers[task.id] = await executor.controller(task, Dependencies())
        await controller.prepare()
        await controller.start()
        waits.append(asyncio.create_task(controller.wait()))
    handles = {id: _text(controller.handle) for id, controller in controllers.items()}
    print(json.dumps(handles), flush=True)
    # Like an agent that waits for its tasks when it is killed.
    await asyncio.gather(*waits, asyncio.Event().wait(), return_exceptions=True)


def _text(handle: bytes | None) -> str | None:
    return base64.b64encode(handle).decode() if handle is not None else None


if __name__ == "__main__":
    asyncio.run(main())
