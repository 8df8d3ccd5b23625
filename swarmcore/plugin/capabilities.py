"""The kinds of things plugins offer, and what each must look like before the core trusts its shape."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from swarmcore.plugin.acceptance import AcceptancePolicy

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")


class OfferError(Exception):
    """What a plugin offered does not have the shape of its kind. The text names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of capability: the hook that offers it, and the check of one offer."""

    name: str
    hook: str
    is_policy: bool
    """Left out in safe mode."""
    check: Callable[[Any], None]


def _sync(obj: Any, *methods: str) -> None:
    for method in methods:
        function = getattr(obj, method, None)
        if not callable(function):
            raise OfferError(f"has no method {method!r}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise OfferError(f"{method!r} must not be async")
        if inspect.isgeneratorfunction(function) and method != "place":
            raise OfferError(f"{method!r} must not be a generator")


def _async(obj: Any, *methods: str) -> None:
    for method in methods:
        function = getattr(obj, method, None)
        if not callable(function):
            raise OfferError(f"has no method {method!r}")
        if not inspect.iscoroutinefunction(function):
            raise OfferError(f"{method!r} must be async")


def _check_filter(obj: Any) -> None:
    if type(getattr(obj, "order", None)) is not int:
        raise OfferError("'order' must be an int")
    if type(getattr(obj, "dynamic", None)) is not bool:
        raise OfferError("'dynamic' must be a bool")
    _sync(obj, "prepare", "explain")


def _check_strategy(obj: Any) -> None:
    _sync(obj, "rank")
    if hasattr(obj, "place"):
        _sync(obj, "place")


def _check_executor(obj: Any) -> None:
    runtimes = getattr(obj, "runtimes", None)
    if not isinstance(runtimes, frozenset) or not runtimes or not all(isinstance(each, str) for each in runtimes):
        raise OfferError("'runtimes' must be a frozenset of at least one str")
    if type(getattr(obj, "automatic", None)) is not int:
        raise OfferError("'automatic' must be an int")
    _async(obj, "available", "create")


def _check_acceptance(obj: Any) -> None:
    if not isinstance(obj, AcceptancePolicy):
        raise OfferError("is not an AcceptancePolicy")
    if not isinstance(getattr(obj, "may_grant", None), frozenset):
        raise OfferError("'may_grant' must be a frozenset")
    _async(obj, "evaluate")


def _check_service(obj: Any) -> None:
    if getattr(obj, "scope", None) not in ("process", "leader"):
        raise OfferError("'scope' must be 'process' or 'leader'")
    _async(obj, "run")


KINDS: tuple[Kind, ...] = (
    Kind("filter", "swarmcore_scheduler_filters", True, _check_filter),
    Kind("strategy", "swarmcore_scheduler_strategies", True, _check_strategy),
    Kind("executor", "swarmcore_executors", False, _check_executor),
    Kind("acceptance", "swarmcore_acceptance_policies", True, _check_acceptance),
    Kind("join", "swarmcore_join_methods", False, lambda obj: _sync(obj, "credential")),
    Kind("restart", "swarmcore_restart_policies", True, lambda obj: _sync(obj, "decide")),
    Kind("service", "swarmcore_services", True, _check_service),
    Kind("observer", "swarmcore_observers", True, lambda obj: None),
)


def check_offers(kind: Kind, offers: Any) -> Mapping[str, Any]:
    """What a registration hook returned, by name; raises OfferError."""
    if not isinstance(offers, (list, tuple)):
        if inspect.iscoroutine(offers) or inspect.isgenerator(offers):
            offers.close()
        raise OfferError(f"{kind.hook} returned {type(offers).__name__}, not a list")
    found: dict[str, Any] = {}
    for offer in offers:
        name = getattr(offer, "name", None)
        if isinstance(offer, type):
            raise OfferError(f"{kind.hook} returned the class {offer.__name__!r}, not an object of it")
        if not isinstance(name, str) or not _NAME.match(name):
            raise OfferError(
                f"{kind.hook} returned a {type(offer).__name__} whose name is {name!r}: "
                "use lower case letters, digits, '.', '_', '-'"
            )
        if name in found:
            raise OfferError(f"{kind.name}/{name} is offered twice")
        try:
            kind.check(offer)
        except OfferError as error:
            raise OfferError(f"{kind.name}/{name} {error}") from None
        found[name] = offer
    return MappingProxyType(found)
