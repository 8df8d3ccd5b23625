"""The two managers of the race, each started fresh on folders of its own, and what is asked of both alike."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
import psutil

from bench.workers import Target
from swarmcore.api.control_pb2 import (
    CreateServiceRequest,
    ListClustersRequest,
    ListNodesRequest,
    ListServiceStatusesRequest,
    RemoveServiceRequest,
    UpdateNodeRequest,
)
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.specs_pb2 import NodeSpec, ServiceSpec
from swarmcore.api.types_pb2 import NodeStatus
from swarmcore.testing.engines import DockerEngine, docker_engine
from swarmcore.testing.ports import free_port

IMAGE = "busybox:bench"
COMMAND = ("sleep", "86400")
START_SECONDS = 60.0
HOST = "127.0.0.1"


class Manager(Protocol):
    """What the race asks of a manager."""

    name: str
    engine: DockerEngine | None
    """The engine on which the manager's own node runs tasks, if it does."""

    @property
    def process(self) -> psutil.Process:
        """The manager's process: CPU seconds and memory are read from it."""
        ...

    @property
    def target(self) -> Target: ...

    async def create_service(self, name: str, replicas: int) -> str:
        """Create a replicated service over the manager's own API and return its id."""
        ...

    async def running(self, service_id: str) -> int:
        """How many of its tasks the manager itself counts as RUNNING."""
        ...

    async def remove_service(self, service_id: str) -> None: ...


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float = 120.0) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerManager:
    """Docker's own swarm mode: `docker swarm init` on a private engine, driven over the engine's HTTP API."""

    name = "docker"

    def __init__(self, engine: DockerEngine) -> None:
        self.engine: DockerEngine | None = engine
        self._port = free_port()
        self._token = ""
        self.process = psutil.Process(engine.process.pid)
        self._http = UnixConnection(str(engine.socket))

    @property
    def target(self) -> Target:
        return Target(HOST, self._port, self._token)

    async def start(self, *, runs_tasks: bool) -> None:
        """Become a swarm of one node, with enough addresses for a thousand nodes on the ingress network."""
        await self._ask(
            "POST",
            "/swarm/init",
            {
                "ListenAddr": f"{HOST}:{self._port}",
                "AdvertiseAddr": f"{HOST}:{self._port}",
                "DefaultAddrPool": ["10.32.0.0/11"],
                "SubnetSize": 20,
                "Availability": "active" if runs_tasks else "drain",
            },
        )
        swarm = await self._ask("GET", "/swarm")
        self._token = swarm["JoinTokens"]["Worker"]

    async def create_service(self, name: str, replicas: int) -> str:
        spec = {
            "Name": name,
            "TaskTemplate": {"ContainerSpec": {"Image": IMAGE, "Command": list(COMMAND)}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        }
        created = await self._ask("POST", "/services/create", spec)
        return str(created["ID"])

    async def running(self, service_id: str) -> int:
        filters = json.dumps({"id": [service_id]}).replace(" ", "").replace('"', "%22")
        services = await self._ask("GET", f"/services?status=true&filters={filters}")
        return int(services[0]["ServiceStatus"]["RunningTasks"])

    async def remove_service(self, service_id: str) -> None:
        await self._ask("DELETE", f"/services/{service_id}")

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self._ask_now, method, path, body)

    def _ask_now(self, method: str, path: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        self._http.request(method, "/v1.41" + path, json.dumps(body) if body is not None else None, headers)
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"docker: {method} {path}: {answer.status} {data.decode().strip()}")
        return json.loads(data) if data else None


class OwnManager:
    """swarmd, driven over its control socket."""

    name = "ours"

    def __init__(self, process: subprocess.Popen[bytes], socket_path: Path, port: int) -> None:
        self._popen = process
        self.engine: DockerEngine | None = None
        self.process = psutil.Process(process.pid)
        self._channel = grpc.aio.insecure_channel(
            f"unix:{socket_path}", options=[("grpc.max_receive_message_length", -1)]
        )
        self._control = ControlStub(self._channel)
        self._port = port
        self._token = ""

    @property
    def target(self) -> Target:
        return Target(HOST, self._port, self._token)

    async def start(self, *, runs_tasks: bool) -> None:
        """Wait until the cluster is there and this node is in it; take the node out of use unless it runs tasks."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._popen.poll() is not None:
                raise RuntimeError("swarmd ended while it started; its log says why")
            try:
                clusters = (await self._control.ListClusters(ListClustersRequest())).clusters
                nodes = (await self._control.ListNodes(ListNodesRequest())).nodes
                if clusters and nodes:
                    break
            except grpc.aio.AioRpcError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"swarmd did not answer on its control socket in {START_SECONDS:.0f} s")
            await asyncio.sleep(0.1)
        self._token = clusters[0].root_ca.join_tokens.worker
        while not runs_tasks:
            node = (await self._control.ListNodes(ListNodesRequest())).nodes[0]
            spec = NodeSpec()
            spec.CopyFrom(node.spec)
            spec.availability = NodeSpec.DRAIN
            request = UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=spec)
            try:
                await self._control.UpdateNode(request)
                break
            except grpc.aio.AioRpcError as error:
                # The node registers at the same time, and each write makes a new version.
                if "out of sequence" not in str(error.details()) or time.monotonic() > deadline:
                    raise
        while runs_tasks:
            node = (await self._control.ListNodes(ListNodesRequest())).nodes[0]
            if node.status.state == NodeStatus.READY:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"the node of swarmd was not ready in {START_SECONDS:.0f} s")
            await asyncio.sleep(0.1)

    async def create_service(self, name: str, replicas: int) -> str:
        spec = ServiceSpec()
        spec.annotations.name = name
        spec.task.container.image = IMAGE
        spec.task.container.command.extend(COMMAND)
        spec.replicated.replicas = replicas
        return str((await self._control.CreateService(CreateServiceRequest(spec=spec))).service.id)

    async def running(self, service_id: str) -> int:
        answer = await self._control.ListServiceStatuses(ListServiceStatusesRequest(services=[service_id]))
        return int(answer.statuses[0].running_tasks)

    async def remove_service(self, service_id: str) -> None:
        await self._control.RemoveService(RemoveServiceRequest(service_id=service_id))

    async def aclose(self) -> None:
        await self._channel.close()


@contextlib.asynccontextmanager
async def docker_manager(*, runs_tasks: bool = False) -> AsyncIterator[DockerManager]:
    """A fresh engine that is a swarm by itself."""
    # Neither side may wait for a registry that is not there.
    os.environ["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] = "1"
    with contextlib.ExitStack() as stack:
        engine = await asyncio.to_thread(stack.enter_context, docker_engine(images=(IMAGE,)))
        manager = DockerManager(engine)
        await manager.start(runs_tasks=runs_tasks)
        yield manager


@contextlib.asynccontextmanager
async def own_manager(
    folder: Path, *, runs_tasks: bool = False, flags: Sequence[str] = ()
) -> AsyncIterator[OwnManager]:
    """A fresh swarmd; with `runs_tasks` it needs an engine of its own, named in `flags`."""
    port = free_port()
    control = folder / "control.sock"
    swarmd = Path(sys.executable).with_name("swarmd")
    command = [
        str(swarmd),
        *("-d", str(folder / "state")),
        *("--listen-remote-api", f"{HOST}:{port}"),
        *("--listen-control-api", str(control)),
        *("--log-level", "warn"),
        *flags,
    ]
    process = _start(command, folder / "swarmd.log")
    manager = OwnManager(process, control, port)
    try:
        await manager.start(runs_tasks=runs_tasks)
        yield manager
    except BaseException:
        tail = (folder / "swarmd.log").read_text(errors="replace")[-2000:]
        if tail:
            print(f"the log of swarmd ends with:\n{tail}", file=sys.stderr)
        raise
    finally:
        await manager.aclose()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _start(command: Sequence[str], log_file: Path) -> subprocess.Popen[bytes]:
    with open(log_file, "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
