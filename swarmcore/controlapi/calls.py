"""What the calls of all kinds of objects share: the store, the clock, new ids, the cluster's members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.ids import IdSource, new_id
from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import Version
from swarmcore.clock import Clock, SystemClock
from swarmcore.controlapi.cluster_ops import ClusterOps, MemberLike
from swarmcore.controlapi.validate.bounds import brief
from swarmcore.errors import InvalidArgumentError, NotFoundError
from swarmcore.store.store import Store

_SYSTEM_CLOCK: Final = SystemClock()

IsDirty = Callable[[Service, Task, Node | None], bool]
"""Whether a task differs from what its service asks for now."""


def differs_from_service(service: Service, task: Task, node: Node | None) -> bool:
    """The plain rule: another version of the spec, and another task or endpoint in it."""
    del node
    if task.HasField("spec_version") and task.spec_version.index == service.spec_version.index:
        return False
    return task.spec != service.spec.task or task.endpoint.spec != service.spec.endpoint


class Calls:
    """Constructed once for a manager, on the leader and on followers alike. A follower's writes raise NotLeaderError.

    Calls raise SwarmError with one line of text; one that raises has changed nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        members: Callable[[], Sequence[MemberLike]],
        cluster_ops: ClusterOps,
        new_id: IdSource = new_id,
        clock: Clock = _SYSTEM_CLOCK,
        is_dirty: IsDirty = differs_from_service,
    ) -> None:
        self.store = store
        self.members = members
        self.cluster_ops = cluster_ops
        self.new_id = new_id
        self.clock = clock
        self.is_dirty = is_dirty

    def now(self) -> Timestamp:
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self.clock.now() * 1e9))
        return stamp


def require_version(has_version: bool, version: Version, field: str) -> int:
    """The version that an update was made from."""
    if not has_version:
        raise InvalidArgumentError(f"invalid argument: {field} is missing: give the version that was read")
    return int(version.index)


def not_found(kind: str, id: str) -> NotFoundError:
    """What a call says about an id that nothing has."""
    return NotFoundError(f"{kind} {brief(id)} not found")
