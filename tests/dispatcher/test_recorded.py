"""Messages that stock Docker Engines sent, recorded on the wire: what their agents say is taken in, and what their
manager told a worker is what this one tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from swarmcore.api.dispatcher_pb2 import AssignmentsMessage, SessionRequest, UpdateTaskStatusRequest
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState
from swarmcore.dispatcher.assignments import concerns_node, needs
from swarmcore.testing.clock import let_the_loop_run

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str, rpc: str) -> list[dict[str, Any]]:
    entries = json.loads((RECORDED / name).read_text())
    return [_without_placeholders(entry["message"]) for entry in entries if entry["rpc"] == rpc]


def _without_placeholders(value: Any) -> Any:
    """`<PEM or DER, base64>` stands for a certificate or a key: leave it out."""
    if isinstance(value, dict):
        return {key: _without_placeholders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_placeholders(item) for item in value]
    return "" if isinstance(value, str) and value.startswith("<") else value


async def test_a_stock_engine_registers_and_its_reports_are_taken_in(world: Any, task_of: Any) -> None:
    request = ParseDict(recorded("docker-engine-to-manager.json", "Session request")[0], SessionRequest())
    reports = [
        ParseDict(message, UpdateTaskStatusRequest())
        for message in recorded("docker-engine-to-manager.json", "UpdateTaskStatus request")
    ]
    ids = sorted({update.task_id for report in reports for update in report.updates})
    last = {update.task_id: update.status for report in reports for update in report.updates}
    await world.add_nodes("n1")
    await world.put_tasks(*[task_of(id, "n1") for id in ids])

    agent = await world.agent("n1", description=request.description)
    for report in reports:
        await agent.report(*[(update.task_id, update.status) for update in report.updates])
    await let_the_loop_run()

    assert len(reports) > 10
    assert world.node("n1").description.engine.engine_version.startswith("20.10")
    assert {plugin.type for plugin in world.node("n1").description.engine.plugins} >= {"Log", "Network", "Volume"}
    for id in ids:
        written = world.task(id).status
        assert written.state == last[id].state
        assert written.message == last[id].message
        assert written.err == last[id].err
        assert written.container == last[id].container
    ends = {TaskState.Name(world.task(id).status.state) for id in ids}
    assert ends >= {"REJECTED", "FAILED"}


def test_dockers_own_manager_tells_a_worker_what_this_one_would() -> None:
    """Each recorded task update that follows another one of the same task must concern the node by our rule."""
    seen: dict[str, Task] = {}
    compared = 0
    for entry in recorded("docker-manager-to-worker.json", "Assignments message"):
        message = ParseDict(entry, AssignmentsMessage())
        known = {change.assignment.secret.id for change in message.changes}
        known |= {change.assignment.config.id for change in message.changes}
        for change in message.changes:
            if change.assignment.WhichOneof("item") != "task" or change.action:
                continue
            task = change.assignment.task
            if task.id in seen:
                assert concerns_node(seen[task.id], task)
                compared += 1
            elif task.status.state <= TaskState.RUNNING:
                # Secrets and configs come with the first message that has the task.
                assert {id for _, id in needs(task)} <= known
            seen[task.id] = task
    assert compared > 3
