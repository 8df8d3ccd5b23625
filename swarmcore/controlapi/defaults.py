"""What a service's spec means where it says nothing: GetService with `insert_defaults` (SwarmKit: 2.4, part 14)."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from swarmcore.api.objects_pb2 import Service
from swarmcore.api.types_pb2 import RestartPolicy, UpdateConfig

STOP_GRACE_SECONDS = 10
RESTART_DELAY_SECONDS = 5
MONITOR_SECONDS = 5


def default_update() -> UpdateConfig:
    return UpdateConfig(
        parallelism=1,
        failure_action=UpdateConfig.PAUSE,
        monitor=Duration(seconds=MONITOR_SECONDS),
        order=UpdateConfig.STOP_FIRST,
    )


def with_defaults(service: Service) -> Service:
    """A copy of `service` whose spec has the defaults filled in, only where a part is missing."""
    filled = Service()
    filled.CopyFrom(service)
    spec = filled.spec
    if spec.task.WhichOneof("runtime") == "container":
        container = spec.task.container
        if not container.HasField("stop_grace_period"):
            container.stop_grace_period.seconds = STOP_GRACE_SECONDS
        container.pull_options.SetInParent()
        container.dns_config.SetInParent()
    spec.task.resources.SetInParent()
    if not spec.task.HasField("restart"):
        spec.task.restart.condition = RestartPolicy.ANY
    if not spec.task.restart.HasField("delay"):
        spec.task.restart.delay.seconds = RESTART_DELAY_SECONDS
    spec.task.placement.SetInParent()
    if spec.WhichOneof("mode") not in ("replicated_job", "global_job"):
        for name in ("update", "rollback"):
            update: UpdateConfig = getattr(spec, name)
            if not spec.HasField(name):
                update.CopyFrom(default_update())
            elif not update.HasField("monitor"):
                update.monitor.seconds = MONITOR_SECONDS
    return filled
