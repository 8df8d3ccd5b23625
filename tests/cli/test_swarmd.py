"""`swarmd`: its flags, its log lines, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swarmcore.cli.repeats import REMEMBERED, Repeats
from swarmcore.cli.swarmd import LineFormatter, build_config, command, serve
from swarmcore.errors import ConfigurationError
from swarmcore.node.config import AcceptRule, NodeConfig


def config_of(*args: str) -> NodeConfig:
    given = dict(command.make_context("swarmd", list(args)).params)
    for name in ("version", "log_level"):
        given.pop(name)
    return build_config(given)


def test_the_sessions_flags(tmp_path: Path) -> None:
    first = config_of("-d", "/tmp/docker1", "--listen-control-api", "/tmp/manager1/swarm.sock", "--hostname", "docker1")
    second = config_of("-d", "/tmp/node-2", "--hostname", "docker2", "--join-addr", "10.1.1.1:4242")

    assert (first.state_dir, first.hostname) == (Path("/tmp/docker1"), "docker1")
    assert first.listen_control_api == Path("/tmp/manager1/swarm.sock")
    assert (second.join_addr, second.join_token) == ("10.1.1.1:4242", "")


def test_acceptance_executors_and_generic_resources_are_lists() -> None:
    config = config_of(
        "--accept",
        "auto:worker",
        "--accept",
        "token",
        "--executor",
        "docker,process",
        "--generic-node-resources",
        "gpu=A",
    )

    assert config.accept == (AcceptRule(policy="auto", config="worker"), AcceptRule(policy="token"))
    assert config.executors == ("docker", "process")
    assert config.generic_resources[0].named_resource_spec.value == "A"


def test_an_unlock_key_is_32_bytes() -> None:
    typed = "SWMKEY-1-" + base64.b64encode(b"k" * 32).decode().rstrip("=")

    assert config_of("--unlock-key", typed).unlock_key == b"k" * 32


@pytest.mark.parametrize(
    "args",
    [
        ("--join-token", "SWMTKN-1-x-y"),
        ("--join-addr", "no-port"),
        ("--join-addr", ":4242"),
        ("--join-addr", "h:1", "--force-new-cluster"),
        ("--listen-remote-api", ""),
        ("--listen-remote-api", "0.0.0.0:99999"),
        ("--advertise-remote-api", "10.1.1.1"),
        ("--listen-control-api", ""),
        ("--listen-control-api", "/" + "x" * 120),
        ("--listen-metrics", "nonsense"),
        ("--hostname", "has blank"),
        ("--hostname", "x" * 256),
        ("--heartbeat-tick", "0"),
        ("--election-tick", "1"),
        ("--executor", "auto,docker"),
        ("--executor", ""),
        ("--accept", ""),
        ("--accept", "auto", "--accept", "auto:worker"),
        ("--generic-node-resources", "gpu"),
        ("--external-ca", "protocol=cfssl"),
        ("--external-ca", "protocol=cfssl,url=https://ca.example"),
        ("--autolock", "--join-addr", "10.1.1.1:4242"),
        ("--listen-debug", "0.0.0.0:6060"),
        ("--listen-debug", ":6060"),
        ("--join-addr", "x" * 70 + ":4242"),
        ("--unlock-key", "SWMKEY-1-c2hvcnQ"),
        ("--unlock-key", "not a key"),
    ],
)
def test_a_flag_that_can_not_work_is_refused_by_its_name(args: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        config_of(*args)

    assert args[0] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_unlock_key_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        config_of("--unlock-key", "SWMKEY-1-c2VjcmV0")

    assert "c2VjcmV0" not in str(refused.value)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--nonsense",), 2, "Error: No such option"),
        (("--log-level", "loud"), 2, "is not one of"),
        (("--join-token", "x"), 1, "Error: --join-token needs --join-addr"),
    ],
)
def test_the_command_ends_with_one_line(args: tuple[str, ...], code: int, words: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from swarmcore.cli.swarmd import main; main()", *args], capture_output=True, text=True
    )

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (code, "", 1)
    assert words in ran.stderr


def test_a_log_record_is_one_line_whatever_it_says() -> None:
    record = logging.LogRecord("swarmcore.raft", logging.WARNING, "", 0, 'say "%s"', ("a\nb",), None)
    record.created, record.msecs = 0.0, 7.0

    assert LineFormatter().format(record) == (
        'time=1970-01-01T00:00:00.007Z level=warn module=raft msg="say \\"a\\nb\\""'
    )


def test_what_fails_over_and_over_is_said_once_a_minute() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)

    def say(text: str, level: int = logging.WARNING) -> str:
        record = logging.LogRecord("swarmcore.raft", level, "", 0, "%s", (text,), None)
        return record.getMessage() if repeats.filter(record) else ""

    assert [say("full"), say("full"), say("other"), say("full")] == ["full", "", "other", ""]
    assert [say("fine", logging.INFO), say("fine", logging.INFO)] == ["fine", "fine"]
    now = 61.0
    assert [say("full"), say("full")] == ["full (2 times more since the last line)", ""]
    assert say("other") == "other"
    for number in range(REMEMBERED):
        say(str(number))
    assert say("full") == "full"


async def test_a_signal_stops_the_node_in_good_order() -> None:
    started = asyncio.Event()
    cleaned = []

    async def run(config: NodeConfig) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    served = asyncio.ensure_future(serve(NodeConfig(), run))
    await started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(served, 5)

    assert cleaned == [True]


async def test_what_the_node_raises_comes_out() -> None:
    async def run(config: NodeConfig) -> None:
        raise ConfigurationError("the port is taken")

    with pytest.raises(ConfigurationError, match="the port is taken"):
        await serve(NodeConfig(), run)


def test_version_is_one_line() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from swarmcore.cli.swarmd import main; main()", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.startswith("swarmd swarmcore ")


def test_no_core_file_is_written_of_a_node_and_its_tasks_may_have_theirs() -> None:
    asks = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    script = (
        "import subprocess, sys; from swarmcore.cli.swarmd import forbid_dumps; forbid_dumps()\n"
        f"exec({asks!r}); sys.stdout.flush(); subprocess.run([sys.executable, '-c', {asks!r}], check=True)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=20)

    assert done.stdout.split() == [b"0", b"1"]
