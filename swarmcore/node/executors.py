"""Which executors this node runs, as `--executor` says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from swarmcore.errors import ConfigurationError
from swarmcore.node.late_executor import LateExecutor
from swarmcore.plugin.executor import Executor, ExecutorFactory, HostInfo
from swarmcore.plugin.plugin_set import PluginSet

log = logging.getLogger("swarmcore.node")

AUTO = ("auto",)
AVAILABLE_SECONDS = 3.0
CREATE_SECONDS = 20.0


async def create(
    plugins: PluginSet, names: tuple[str, ...], *, state_dir: Path, engine_addr: str
) -> Mapping[str, Executor]:
    """Executors by the runtimes they run. Raises ConfigurationError for a named one that is missing or fails.

    `auto` takes the first engine that answers; where none does, the node runs no tasks, and says so. Of several that
    are named one may be unavailable: the others run, and it is tried again as long as the node runs.
    """
    chosen = await _automatic(plugins, state_dir, engine_addr) if names == AUTO else _named(plugins, names)
    made: dict[str, Executor] = {}
    try:
        for factory in chosen:
            taken = sorted(factory.runtimes & made.keys())
            if taken:
                raise ConfigurationError(
                    f"--executor: {factory.name!r} runs {', '.join(taken)} tasks as another one does: name one of them"
                )
            host = _host(factory.name, state_dir, engine_addr)
            executor = await _create_or_wait(factory, host, is_alone=len(chosen) == 1)
            for runtime in sorted(factory.runtimes):
                made[runtime] = executor
        late = [executor for executor in made.values() if isinstance(executor, LateExecutor)]
        if late and len(late) == len(made):
            raise ConfigurationError(late[0].reason)
    except BaseException:
        for executor in {id(each): each for each in made.values()}.values():
            await executor.aclose()
        raise
    return made


def check_names(plugins: PluginSet, names: tuple[str, ...]) -> None:
    """Raise ConfigurationError where `--executor` names one that no plugin offers."""
    if names != AUTO:
        _named(plugins, names)


def _named(plugins: PluginSet, names: tuple[str, ...]) -> list[ExecutorFactory]:
    factories = []
    for name in names:
        factory = plugins.executors.get(name)
        if factory is None:
            offered = ", ".join(sorted(plugins.executors)) or "none"
            raise ConfigurationError(f"--executor: no plugin offers {name!r} (installed: {offered})")
        factories.append(factory)
    return factories


async def _automatic(plugins: PluginSet, state_dir: Path, engine_addr: str) -> list[ExecutorFactory]:
    by_rank = sorted(
        (factory for factory in plugins.executors.values() if factory.automatic > 0), key=lambda each: each.automatic
    )
    for factory in by_rank:
        try:
            async with asyncio.timeout(AVAILABLE_SECONDS):
                if await factory.available(_host(factory.name, state_dir, engine_addr)):
                    return [factory]
        except Exception as error:  # noqa: BLE001 - a plugin's probe must not keep the node from starting
            log.warning("executor %s can't tell whether its engine is there: %s", factory.name, error)
    log.warning(
        "no container engine answers (%s): this node runs no tasks; start the engine and then swarmd again, "
        "or choose another with --executor",
        ", ".join(factory.name for factory in by_rank) or "no executor plugin is installed",
    )
    return []


async def _create_or_wait(factory: ExecutorFactory, host: HostInfo, *, is_alone: bool) -> Executor:
    """One that is not there yet, where it is one of several. Raises ConfigurationError where it is the only one."""
    try:
        return await _create(factory, host)
    except ConfigurationError as error:
        if is_alone:
            raise
        return LateExecutor(partial(_create, factory, host), str(error))


async def _create(factory: ExecutorFactory, host: HostInfo) -> Executor:
    try:
        async with asyncio.timeout(CREATE_SECONDS):
            return await factory.create(host)
    except ConfigurationError:
        raise
    except TimeoutError:
        raise ConfigurationError(f"executor {factory.name!r} did not start in {CREATE_SECONDS:.0f} s") from None
    except Exception as error:
        raise ConfigurationError(f"executor {factory.name!r} did not start: {error}") from error


def _host(name: str, state_dir: Path, engine_addr: str) -> HostInfo:
    folder = state_dir / "executors" / name
    # Each folder by itself: the mode of one call is that of the last one alone.
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    return HostInfo(state_dir=str(folder), engine_addr=engine_addr)
