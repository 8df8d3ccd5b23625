"""What the suite lets tasks run: small programs as data. Engines run them as shell scripts, the model step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

HEALTHY_FILE: Final = "healthy"
"""In the working folder of the task; its check looks for it."""
HEALTH_TEST: Final = ("CMD-SHELL", f"test -e {HEALTHY_FILE}")
NO_HEALTH_TEST: Final = ("NONE",)
_PRINTF_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Print:
    """Write `data` so many times to stdout (1) or stderr (2)."""

    data: bytes
    stream: int = 1
    times: int = 1


@dataclass(frozen=True, slots=True)
class Count:
    """Write the lines 1, 2 and so on up to `last`."""

    last: int
    stream: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so long; a signal with a handler ends the pause."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunOn:
    """Do nothing until a signal's handler exits."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End with this code. A program that has no step left ends with 0."""

    code: int


@dataclass(frozen=True, slots=True)
class BecomeHealthy:
    """From here on the check that `Health` asks for succeeds."""


@dataclass(frozen=True, slots=True)
class BecomeSick:
    """From here on it fails."""


@dataclass(frozen=True, slots=True)
class CopyLines:
    """Write each line of the standard input to stdout, until it ends. Commands only."""


@dataclass(frozen=True, slots=True)
class PrintVariable:
    """Write a line with the value of this variable of the environment. Commands only."""

    name: str


Step = Print | Count | Pause | RunOn | Exit | BecomeHealthy | BecomeSick | CopyLines | PrintVariable


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The health check of a task's spec: `test` is HEALTH_TEST or NO_HEALTH_TEST."""

    test: tuple[str, ...] = HEALTH_TEST
    interval: float = 0.5
    """Seconds."""
    retries: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program, and what its task's spec says about how to stop and watch it."""

    steps: tuple[Step, ...] = (RunOn(),)
    on_signal: Mapping[str, tuple[Step, ...]] = field(default_factory=lambda: MappingProxyType({"TERM": (Exit(0),)}))
    """By name without SIG. Without steps the signal is ignored; after steps that do not exit the program goes on."""
    stop_signal: str = ""
    """As in a spec, such as SIGINT; empty for the executor's default, SIGTERM."""
    grace: float = 10.0
    """Seconds between the stop signal and the kill."""
    health: Health | None = None
    scratch: bool = False
    """The task has a volume of its own, where the engine knows volumes: without a name, labelled as the task is."""
    is_binary: bool = False
    """What it prints is no text: the task asks for a log driver that keeps every byte, where the engine has several."""
    is_missing: bool = False
    """The command does not exist."""

    @property
    def command(self) -> tuple[str, ...]:
        """What an engine with a POSIX shell runs; needs `sleep`, `rm` and what the shell has built in."""
        return ("/no/such/program",) if self.is_missing else ("sh", "-c", self.script)

    @property
    def script(self) -> str:
        lines = []
        for name, steps in self.on_signal.items():
            if steps:
                lines += [f"on_{name}() {{", *_lines(steps), "}", f"trap on_{name} {name}"]
            else:
                lines.append(f"trap '' {name}")
        # A signal may go to all processes of a task: it is the shell's to say what it means.
        ignored = f"trap '' {' '.join(self.on_signal)}; " if self.on_signal else ""
        lines.append(f"pause() {{ ({ignored}exec sleep $1) & wait $!; }}")
        return "\n".join([*lines, *_lines(self.steps), ""])


def exits(code: int) -> Program:
    """Ends at once."""
    return Program(steps=(Exit(code),))


def prints(*steps: Print | Count | PrintVariable) -> Program:
    """Prints and ends."""
    return Program(steps=steps)


def runs() -> Program:
    """Says that it is ready, and runs until it is told to stop; then it ends with 0 at once."""
    return Program(steps=(READY, RunOn()))


READY: Final = Print(b"ready\n")
"""Printed by programs whose signal handlers must be in place before the suite goes on."""


def _lines(steps: tuple[Step, ...]) -> list[str]:
    return [line for step in steps for line in _line(step)]


def _line(step: Step) -> list[str]:
    if isinstance(step, Print):
        return _print(step)
    if isinstance(step, Count):
        return ["i=1", f"while [ $i -le {step.last} ]; do echo $i{_to(step.stream)}; i=$((i + 1)); done"]
    if isinstance(step, Pause):
        return [f"pause {step.seconds:g}"]
    if isinstance(step, RunOn):
        return ["while :; do pause 3600; done"]
    if isinstance(step, Exit):
        return [f"exit {step.code}"]
    if isinstance(step, CopyLines):
        return ["while IFS= read -r line; do printf '%s\\n' \"$line\"; done"]
    if isinstance(step, PrintVariable):
        return [f"printf '%s\\n' \"${step.name}\""]
    return [f": >{HEALTHY_FILE}" if isinstance(step, BecomeHealthy) else f"rm -f {HEALTHY_FILE}"]


def _print(step: Print) -> list[str]:
    to = _to(step.stream)
    pieces = [step.data[at : at + _PRINTF_BYTES] for at in range(0, len(step.data), _PRINTF_BYTES)]
    lines = [f"printf '{_octal(piece)}'{to}" for piece in pieces]
    if step.times == 1:
        return lines
    return [f"i=0; while [ $i -lt {step.times} ]; do", *lines, "i=$((i + 1)); done"]


def _to(stream: int) -> str:
    return "" if stream == 1 else " >&2"


def _octal(data: bytes) -> str:
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._:-"
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data)
