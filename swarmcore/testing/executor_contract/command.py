"""`python -m swarmcore.testing executor NAME`: the suite against an engine that is there, with a report to read."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket as sockets
import stat
import sys
import tempfile
import textwrap
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import importlib_metadata

from swarmcore.plugin.executor import ExecutorFactory
from swarmcore.testing.engines import BUSYBOX, busybox_image
from swarmcore.testing.executor_contract import (
    CoreContract,
    EngineContract,
    ExecContract,
    ExecutorContract,
    HealthContract,
    Subject,
    UsageContract,
)
from swarmcore.testing.executor_contract.runner import Result, checks_of, run_check
from swarmcore.testing.executor_contract.subjects.container_engine import (
    ContainerEngineSubject,
    PodmanEngineSubject,
)
from swarmcore.testing.executor_contract.subjects.processes import ProcessSubject
from swarmcore.testing.executor_contract.switch import switch

ENTRY_POINTS: Final = "swarmcore.v1"
SOCKETS: Final = {"docker": "/var/run/docker.sock", "podman": "/run/podman/podman.sock"}
OWN_IMAGE: Final = ("127.0.0.1:1/swarmcore-contract", "latest")
"""Of a registry that nobody can reach: the engine has it, or nobody has. Podman gives what it imports no other tag."""
KINDS: Final = {"docker": ContainerEngineSubject, "podman": PodmanEngineSubject}
BINARY_LOG_DRIVERS: Final = {"docker": "local"}
EXIT_BROKEN: Final = 1

MakeSubject = Callable[[], Subject]


PARTS: Final[dict[str, type]] = {
    "health": HealthContract,
    "exec": ExecContract,
    "usage": UsageContract,
    "engine": EngineContract,
}
"""What an executor may lack."""


@click.command("executor")
@click.argument("name")
@click.option("--socket", metavar="PATH", help="The engine's unix socket. Default: where the engine puts it.")
@click.option("--image", metavar="IMAGE", help="An image with sh, sleep and rm. Default: one is made from busybox.")
@click.option(
    "--subject", metavar="MODULE:NAME", help="Your own subject: what is called without arguments and returns one."
)
@click.option(
    "--without", type=click.Choice(["health", "exec", "usage", "engine"]), multiple=True, help="Leave out these checks."
)
@click.option("--only", metavar="WORDS", multiple=True, help="Only checks whose names have these words.")
@click.option("--list", "is_list", is_flag=True, help="Say what is checked, and check nothing.")
@click.option("--traceback", "has_traceback", is_flag=True, help="Show where a check failed.")
def executor(
    name: str,
    socket: str | None,
    image: str | None,
    subject: str | None,
    without: tuple[str, ...],
    only: tuple[str, ...],
    is_list: bool,
    has_traceback: bool,
) -> None:
    """Hold the executor NAME to its contract, on an engine that is there.

    `docker` and `podman` run containers on the engine behind --socket; all that is made there has names of its own and
    is removed again, and the engine itself is not stopped: its socket is. `process` runs processes of this machine.
    Any other executor needs --subject.
    """
    left_out = {"engine"} if name == "process" and not subject else set(without)
    chosen = [
        (kind, check)
        for kind, check in checks_of(_contract(left_out))
        if all(word.replace(" ", "_") in check for word in only)
    ]
    if not chosen:
        raise click.ClickException("no check has these words; --list shows all")
    if is_list:
        for kind, checks in _grouped(chosen):
            click.echo(_title(kind))
            for check in checks:
                click.echo(f"  {_fact(check)}")
        return
    # What the executor logs of an engine that is being switched off is no part of the report.
    logging.getLogger("swarmcore").addHandler(logging.NullHandler())
    with _subjects(name, socket, image, subject) as (make_subject, place):
        click.echo(f"executor {name}: {len(chosen)} checks {place}")
        results = _run(chosen, make_subject, has_traceback=has_traceback)
    broken = sum(result.error is not None for result in results)
    seconds = sum(result.seconds for result in results)
    said = f"{len(results)} checks in {seconds:.1f} s: " + (
        "all hold" if not broken else f"{broken} do{'es' if broken == 1 else ''} not hold"
    )
    click.secho(f"\n{said}", fg="red" if broken else "green", bold=True)
    if broken:
        sys.exit(EXIT_BROKEN)


def _run(chosen: list[tuple[type, str]], make_subject: MakeSubject, *, has_traceback: bool) -> list[Result]:
    results = []
    for kind, checks in _grouped(chosen):
        click.secho(f"\n{_title(kind)}", bold=True)
        for check in checks:
            result = run_check(kind, check, make_subject)
            results.append(result)
            word, colour = ("ok", "green") if result.error is None else ("FAILED", "red")
            click.echo(f"  {click.style(f'{word:<6}', fg=colour)} {result.seconds:5.1f} s  {result.fact}")
            if result.error is not None:
                click.echo(textwrap.indent(_words(result.error), " " * 18))
                if has_traceback:
                    click.echo("".join(traceback.format_exception(result.error)))
    return results


def _words(error: Exception) -> str:
    """What a failed check says; other errors are the executor's own, or the machine's."""
    text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return "\n".join(textwrap.wrap(text, 100, replace_whitespace=False)) or type(error).__name__


def _contract(left_out: set[str]) -> type:
    if not left_out:
        return ExecutorContract
    more = tuple(kind for word, kind in PARTS.items() if word not in left_out)
    return type("Contract", (CoreContract, *more), {})


def _grouped(chosen: list[tuple[type, str]]) -> Iterator[tuple[type, list[str]]]:
    for kind in dict.fromkeys(kind for kind, _ in chosen):
        yield kind, [check for other, check in chosen if other is kind]


def _title(kind: type) -> str:
    name = kind.__name__.removesuffix("Contract")
    return f"{name}: {(kind.__doc__ or '').strip().splitlines()[0]}"


def _fact(check: str) -> str:
    return check.removeprefix("test_").replace("_", " ")


# Whom to ask


@contextlib.contextmanager
def _subjects(
    name: str, socket: str | None, image: str | None, subject: str | None
) -> Iterator[tuple[MakeSubject, str]]:
    """What makes a subject for each check, and where it is, in words."""
    if subject is not None:
        yield _imported(subject), f"of {subject}"
        return
    factory = _factory(name)
    with tempfile.TemporaryDirectory(prefix="swc-") as folder:
        if name == "process":
            yield lambda: ProcessSubject(factory, folder), "on processes of this machine"
            return
        if name not in SOCKETS:
            raise click.ClickException(f"executor {name!r} needs --subject: only its author knows its engine")
        path = (socket or SOCKETS[name]).removeprefix("unix://")
        _require_engine(path)
        with _image(path, image) as found, switch(path, Path(folder)) as switched:

            def make() -> Subject:
                return KINDS[name](
                    factory,
                    switched.socket,
                    folder,
                    image=found,
                    binary_log_driver=BINARY_LOG_DRIVERS.get(name, ""),
                    stop=switched.off,
                    start=switched.on,
                    api_socket=path,
                )

            yield make, f"on the engine at {path}, with the image {found}"


def _factory(name: str) -> ExecutorFactory:
    """The factory of that name which an installed plugin offers."""
    known = []
    for point in importlib_metadata.entry_points(group=ENTRY_POINTS):
        try:
            offer = getattr(point.load(), "swarmcore_executors", None)
            offered: list[ExecutorFactory] = list(offer()) if offer is not None else []
        except Exception as error:  # noqa: BLE001 - the border: another's plugin is no business of this one's
            click.echo(f"plugin {point.name}: {type(error).__name__}: {error}", err=True)
            continue
        for factory in offered:
            if factory.name == name:
                return factory
            known.append(factory.name)
    raise click.ClickException(
        f"no installed plugin offers an executor {name!r}; there is {', '.join(known) or 'none'}"
    )


def _imported(text: str) -> MakeSubject:
    module, colon, name = text.partition(":")
    if not colon:
        raise click.ClickException(f"--subject {text!r} is not MODULE:NAME")
    sys.path.insert(0, os.getcwd())
    try:
        made: MakeSubject = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise click.ClickException(f"--subject {text!r}: {error}") from error
    return made


def _require_engine(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise click.ClickException(f"{path!r} is no socket")
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.connect(path)
    except OSError as error:
        raise click.ClickException(f"no engine answers at {path!r}: {error.strerror}; use --socket") from error


@contextlib.contextmanager
def _image(path: str, image: str | None) -> Iterator[str]:
    """The image to use: the operator's, or one that is made for the time of the run."""
    if image is not None:
        yield image
        return
    if not os.access(BUSYBOX, os.X_OK):
        raise click.ClickException(f"{BUSYBOX} is not installed (busybox-static) to make an image of; use --image")
    repository, tag = OWN_IMAGE
    query = urllib.parse.urlencode({"fromSrc": "-", "repo": repository, "tag": tag})
    _ask(path, "POST", f"/v1.41/images/create?{query}", busybox_image())
    try:
        yield f"{repository}:{tag}"
    finally:
        _ask(path, "DELETE", f"/v1.41/images/{repository}:{tag}?force=1", b"")


def _ask(path: str, method: str, target: str, body: bytes) -> None:
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        head = f"{method} {target} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/x-tar\r\n\r\n" + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    said = answer.partition(b"\r\n\r\n")[2].decode(errors="replace").strip()
    if int(answer.split(None, 2)[1]) >= 400:
        raise click.ClickException(f"the engine says: {said}")
