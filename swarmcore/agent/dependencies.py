"""Secrets and configs that the managers sent: in memory only, shown to a task only where its own spec names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from swarmcore.api.objects_pb2 import Config, Secret, Task
from swarmcore.api.types_pb2 import ResourceType
from swarmcore.plugin.executor import Dependencies

T = TypeVar("T")


def secret_ids(task: Task) -> frozenset[str]:
    """Ids of the secrets that the task's spec refers to."""
    ids = {ref.secret_id for ref in task.spec.container.secrets}
    ids |= {ref.resource_id for ref in task.spec.resource_references if ref.resource_type == ResourceType.SECRET}
    return frozenset(ids)


def config_ids(task: Task) -> frozenset[str]:
    """Ids of the configs that the task's spec refers to."""
    ids = {ref.config_id for ref in task.spec.container.configs}
    ids |= {ref.resource_id for ref in task.spec.resource_references if ref.resource_type == ResourceType.CONFIG}
    return frozenset(ids)


class _Restricted(Mapping[str, T]):
    """What of `everything` has one of `ids`, as it is at the moment of asking."""

    __slots__ = ("_everything", "_ids", "_suffix")

    def __init__(self, everything: Mapping[str, T], ids: frozenset[str], suffix: str) -> None:
        self._everything = everything
        self._ids = ids
        self._suffix = suffix
        """A secret that its driver makes for one task only comes as `<secret>.<task>`."""

    def __getitem__(self, key: str) -> T:
        if key not in self._ids:
            raise KeyError(key)
        own = self._everything.get(key + self._suffix)
        return own if own is not None else self._everything[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._ids if key in self._everything or key + self._suffix in self._everything)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class DependencyStore:
    """All secrets and configs of the node. The managers count who uses them, and say when the last user is gone."""

    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}
        self.configs: dict[str, Config] = {}

    def reset(self) -> None:
        self.secrets.clear()
        self.configs.clear()

    def put_secret(self, secret: Secret) -> None:
        """Keep a copy: the original would keep the whole message alive that it came in."""
        own = self.secrets[secret.id] = Secret()
        own.CopyFrom(secret)

    def put_config(self, config: Config) -> None:
        own = self.configs[config.id] = Config()
        own.CopyFrom(config)

    def visible_to(self, task: Task) -> Dependencies:
        """What the task may read. A live view: it shows what arrives later, and not what was removed."""
        suffix = f".{task.id}"
        return Dependencies(
            secrets=_Restricted(self.secrets, secret_ids(task), suffix),
            configs=_Restricted(self.configs, config_ids(task), suffix),
        )

    def are_complete(self, task: Task) -> bool:
        """Whether everything that the task refers to is here."""
        visible = self.visible_to(task)
        return len(visible.secrets) == len(secret_ids(task)) and len(visible.configs) == len(config_ids(task))
