"""From flags to the spec of a service, where that needs the manager: names of networks, secrets and configs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swarmcore.api.specs_pb2 import ContainerSpec, ServiceSpec, TaskSpec
from swarmcore.api.types_pb2 import ConfigReference, FileTarget, NetworkAttachmentConfig, RestartPolicy, SecretReference
from swarmcore.cli.command_line import CliError
from swarmcore.cli.connection import Manager
from swarmcore.cli.lookup import find_config, find_network, find_secret
from swarmcore.cli.process_flags import KIND, apply_process
from swarmcore.cli.service_flags import apply_container, apply_flags
from swarmcore.cli.service_values import Attachment, attachment

Given = Mapping[str, Any]


def new_spec(to: Manager, mode: str, runtime: str, given: Given) -> ServiceSpec:
    """The spec of a service to create. Updates and rollbacks replace all tasks at once unless flags say otherwise."""
    spec = ServiceSpec()
    _set_mode(spec, mode, given)
    if runtime == "process":
        spec.task.generic.kind = KIND
    else:
        spec.task.container.SetInParent()
    edit_spec(to, spec, given)
    return spec


def _set_mode(spec: ServiceSpec, mode: str, given: Given) -> None:
    if mode.endswith("-job"):
        # A task that is complete is not replaced whatever the condition. Jobs are never updated by parts.
        spec.task.restart.condition = RestartPolicy.ON_FAILURE
        if mode == "global-job":
            spec.global_job.SetInParent()
            return
        wanted = 1 if given["completions"] is None else given["completions"]
        spec.replicated_job.total_completions = spec.replicated_job.max_concurrent = wanted
        return
    if mode == "global":
        getattr(spec, "global").SetInParent()
    else:
        spec.replicated.replicas = 1
    spec.task.restart.condition = RestartPolicy.ANY
    # Said, not left out: a manager fills in parallelism 1 where there is no update config.
    spec.update.parallelism = 0
    spec.update.SetInParent()
    spec.rollback.SetInParent()


def edit_spec(to: Manager, spec: ServiceSpec, given: Given, *, force: bool = False) -> None:
    """Change `spec` as all the flags say; raises CliError for one that does not fit the service."""
    runtime = spec.task.WhichOneof("runtime")
    apply_flags(spec, given)
    if runtime == "container":
        _edit_container(to, spec.task.container, given)
    elif runtime == "generic" and spec.task.generic.kind == KIND:
        apply_process(spec.task, given)
    elif any(given.get(name) for name in ("image", "command", "args", "env")):
        raise CliError(f"the service runs {spec.task.generic.kind!r}: its task can't be changed from here")
    if given["network"] is not None:
        _attach(to, spec, given["network"])
    if force:
        spec.task.force_update += 1


def _attach(to: Manager, spec: ServiceSpec, name: str) -> None:
    networks = [NetworkAttachmentConfig(target=find_network(to, name).id)] if name else []
    del spec.task.networks[:]
    spec.task.networks.extend(networks)


def _edit_container(to: Manager, container: ContainerSpec, given: Given) -> None:
    apply_container(container, given)
    for text in given.get("rm_secret", ()):
        _detach(container.secrets, "secret", text)
    for text in given.get("rm_config", ()):
        _detach(container.configs, "config", text)
    for wanted in _attachments("secret", [*given.get("secret", ()), *given.get("add_secret", ())]):
        secret = find_secret(to, wanted.name)
        found = secret.spec.annotations.name
        reference = SecretReference(secret_id=secret.id, secret_name=found)
        reference.file.CopyFrom(_file(wanted, found))
        _add(container.secrets, reference)
    for wanted in _attachments("config", [*given.get("config", ()), *given.get("add_config", ())]):
        config = find_config(to, wanted.name)
        found = config.spec.annotations.name
        attached = ConfigReference(config_id=config.id, config_name=found)
        attached.file.CopyFrom(_file(wanted, found))
        _add(container.configs, attached)
    for capability in given.get("add_capability", ()):
        _move(capability, container.capability_drop, container.capability_add)
    for capability in given.get("rm_capability", ()):
        _move(capability, container.capability_add, container.capability_drop)


def _file(wanted: Attachment, found: str) -> FileTarget:
    """`found` is its name, where what was typed may be its id."""
    target = found if wanted.target == wanted.name else wanted.target
    return FileTarget(name=target, uid=wanted.uid, gid=wanted.gid, mode=wanted.mode)


def _attachments(kind: str, texts: Iterable[str]) -> list[Attachment]:
    try:
        return [attachment(text) for text in texts]
    except ValueError as error:
        raise CliError(f"invalid {kind}: {error}") from None


def _add(references: Any, reference: Any) -> None:
    """Attach, in place of what had the same target."""
    kept = [each for each in references if each.file.name != reference.file.name]
    del references[:]
    references.extend([*kept, reference])


def _detach(references: Any, kind: str, name: str) -> None:
    kept = [each for each in references if name not in (getattr(each, f"{kind}_name"), getattr(each, f"{kind}_id"))]
    if len(kept) == len(references):
        raise CliError(f"{kind} {name} is not attached to the service: `swarmctl service inspect` lists what is")
    del references[:]
    references.extend(kept)


def _move(capability: str, source: Any, target: Any) -> None:
    if not capability:
        raise CliError("the capability is empty: give a name, like CAP_NET_ADMIN")
    for repeated, items in (
        (source, [each for each in source if each != capability]),
        (target, list(dict.fromkeys([*target, capability]))),
    ):
        del repeated[:]
        repeated.extend(items)


def runtime_word(task: TaskSpec) -> str:
    """`container`, or the kind of a generic runtime."""
    return task.generic.kind if task.WhichOneof("runtime") == "generic" else task.WhichOneof("runtime") or ""
