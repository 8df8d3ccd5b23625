"""What tasks print and commands beside them, on real processes: three managers and a worker on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from swarmcore.testing.cluster import Swarmctl, Swarmd, program, swarmd, wait_until
from swarmcore.testing.ports import free_port

pytestmark = pytest.mark.xdist_group("logs and exec")

TALKS = "n=0; while :; do echo out $n; echo err $n >&2; n=$((n+1)); read -t 0.2 _ <> /dev/zero || sleep 0.2; done"
SAYS = 'echo "said $HOSTNAME"; echo "complained" >&2; printf "no end"; exec sleep 100000'


class Cluster:
    """Managers m1 (which leads at first), m2, m3, and worker w1."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.nodes: dict[str, Swarmd] = {}
        self._folder = folder
        self._stack = stack
        self._address = ""
        self.add("m1", ())
        self.join("m2", "Manager")
        self.join("m3", "Manager")
        self.join("w1", "Worker")

    def add(self, name: str, flags: Sequence[str]) -> None:
        address = f"127.0.0.1:{free_port()}"
        self._address = self._address or address
        remote = ("--listen-remote-api", address, "--advertise-remote-api", address)
        node = swarmd(self._folder / name, "--executor", "process", "--hostname", name, *remote, *flags)
        self.nodes[name] = self._stack.enter_context(node)

    def join(self, name: str, role: str) -> None:
        tokens = dict(re.findall(r"(Worker|Manager)\s*: (SWMTKN-\S+)", self.ctl("cluster", "inspect")))
        self.add(name, ("--join-addr", self._address, "--join-token", tokens[role]))

    @property
    def ctl(self) -> Swarmctl:
        return self.nodes["m1"].swarmctl

    @property
    def leader(self) -> str:
        rows = self.ctl.table("node", "ls")
        return next(row["Name"] for row in rows if row["Manager status"].endswith("*"))

    @property
    def follower(self) -> str:
        return next(name for name in ("m1", "m2", "m3") if name != self.leader)

    def create(self, name: str, script: str, replicas: int, *flags: str) -> None:
        command = ("--command", "sh", "--args", "-c", "--args", script)
        self.ctl(
            "service", "create", "--name", name, "--runtime", "process", "--replicas", f"{replicas}", *command, *flags
        )

        def runs() -> None:
            (row,) = [row for row in self.ctl.table("service", "ls") if row["Name"] == name]
            assert row["Replicas"] == f"{replicas}/{replicas}"

        wait_until(runs)

    def clear(self) -> None:
        """Remove every task: processes outlive their agents."""
        self.ctl("service", "remove", "says", "talks")
        folders = [node.state_dir / "executors" / "process" / "tasks" for node in self.nodes.values()]
        wait_until(lambda: _assert(not any(list(each.iterdir()) for each in folders), "tasks are left"), seconds=40)

    def task_on(self, node: str, service: str) -> str:
        """The id of a task."""
        rows = self.ctl.table("task", "ls")
        return next(row["ID"] for row in rows if row["Node"] == node and row["Service"].startswith(f"{service}."))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        made = Cluster(tmp_path_factory.mktemp("logs"), stack)
        made.create("says", SAYS, 4)
        made.create("talks", TALKS, 4)
        yield made
        made.clear()


@contextlib.contextmanager
def running(ctl: Swarmctl, folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """`swarmctl` in the background, with the files of its stdout and stderr."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [program("swarmctl"), *arguments],
            env={**os.environ, "SWARM_SOCKET": str(ctl.socket)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield process, out, err
    finally:
        process.kill()
        process.wait()


def test_service_logs_name_each_task_and_keep_the_streams_apart(cluster: Cluster) -> None:
    done = cluster.ctl.run("service", "logs", "says", "--no-task-ids")

    assert done.returncode == 0
    out, err = done.stdout.decode(), done.stderr.decode()
    assert sorted(re.findall(r"^(says\.\d@\w\d) +\| said", out, re.MULTILINE)) == sorted(
        f"says.{slot}@{node}"
        for slot, node in (
            (row["Service"].rpartition(".")[2], row["Node"])
            for row in cluster.ctl.table("task", "ls")
            if row["Service"].startswith("says.")
        )
    )
    assert out.count("| no end") == 4 and out.count("complained") == 0
    assert err.count("| complained\n") == 4 and "\x1b" not in out + err


def test_raw_is_what_the_task_wrote_byte_by_byte(cluster: Cluster) -> None:
    done = cluster.ctl.run("task", "logs", cluster.task_on("w1", "says"), "--raw")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"said \nno end", b"complained\n")


def test_tail_since_and_timestamps(cluster: Cluster) -> None:
    task = cluster.task_on("w1", "talks")
    last = cluster.ctl("task", "logs", task, "--tail", "2", "--raw").splitlines()
    stamped = cluster.ctl("task", "logs", task, "--tail", "4", "--timestamps").splitlines()
    none = cluster.ctl.run("task", "logs", task, "--tail", "0")
    recent = cluster.ctl("task", "logs", task, "--since", "1s", "--raw").splitlines()
    every = cluster.ctl("task", "logs", task, "--since", "2020-01-01T00:00:00Z", "--raw").splitlines()

    assert all(line.startswith("out ") for line in last) and len(last) <= 2
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z talks\.\d\.\w{12}@w1 \| out", line) for line in stamped
    )
    assert (none.returncode, none.stdout, none.stderr) == (0, b"", b"")
    assert 0 < len(recent) < len(every) and every[0] == "out 0"


@pytest.mark.parametrize("words", [("--tail", "x"), ("--tail", "-1"), ("--since", "yesterday")])
def test_what_can_not_be_understood_is_one_line(cluster: Cluster, words: tuple[str, str]) -> None:
    done = cluster.ctl.run("service", "logs", "says", *words)

    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and words[1].encode() in done.stderr


def test_follow_shows_each_line_once_and_in_order_until_it_is_interrupted(cluster: Cluster, tmp_path: Path) -> None:
    with running(cluster.ctl, tmp_path, "service", "logs", "-f", "talks", "--no-task-ids") as (process, out, _):

        def enough() -> None:
            assert out.read_text().count("@w1 | out") > 10 and process.poll() is None

        wait_until(enough)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130

    numbers: dict[str, list[int]] = {}
    for task, number in re.findall(r"^(talks\.\d)@\w\d \| out (\d+)$", out.read_text(), re.MULTILINE):
        numbers.setdefault(task, []).append(int(number))
    assert len(numbers) == 4
    assert all(found == list(range(len(found))) for found in numbers.values())


def test_any_manager_shows_the_same(cluster: Cluster) -> None:
    asked = ("service", "logs", "says", "--raw")

    shown = [sorted(cluster.nodes[name].swarmctl(*asked).splitlines()) for name in ("m1", "m2", "m3")]

    assert shown[0] == shown[1] == shown[2]
    assert shown[0].count("said ") == 4


def test_a_command_beside_a_task_runs_on_its_node_as_the_task_does(cluster: Cluster) -> None:
    for name in ("m1", "w1"):
        task = cluster.task_on(name, "says")
        for asked in (cluster.leader, cluster.follower):
            ctl = cluster.nodes[asked].swarmctl
            done = ctl.run("task", "exec", task, "--", "sh", "-c", "echo $SWARMCORE_TASK_ID; pwd; echo no >&2; exit 7")

            own, folder = done.stdout.decode().split()
            assert (done.returncode, own, done.stderr) == (7, task, b"no\n")
            assert Path(folder).is_relative_to(cluster.nodes[name].state_dir)


def test_input_of_any_length_and_any_bytes_reaches_a_command_and_comes_back(cluster: Cluster) -> None:
    data = os.urandom(2_000_000)

    done = cluster.ctl.run("task", "exec", cluster.task_on("w1", "says"), "-i", "--", "cat", stdin=data)

    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


def test_a_terminal_has_its_size_and_takes_keys(cluster: Cluster) -> None:
    task = cluster.task_on("w1", "says")
    command = [program("swarmctl"), "task", "exec", task, "-it", "--", "sh"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["SWARM_SOCKET"] = str(cluster.ctl.socket)
        os.execv(command[0], command)
    seen = b""
    sent = iter([b"stty size\n", b"sleep 1000\n", b"\x03", b"echo sum $((20+3))\n", b"exit 9\n"])
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.5)[0]:
                # It waits for keys.
                if seen and (keys := next(sent, None)) is not None:
                    os.write(terminal, keys)
                continue
            try:
                seen += os.read(terminal, 4096)
            except OSError:
                break
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 9, seen
    assert re.search(rb"\d+ \d+\r\n", seen) and b"sum 23\r\n" in seen


def test_a_command_is_killed_when_its_operator_leaves(cluster: Cluster, tmp_path: Path) -> None:
    task = cluster.task_on("w1", "says")
    marker = "86399.25"
    with running(cluster.ctl, tmp_path, "task", "exec", task, "--", "sleep", marker) as (process, _, _):
        wait_until(lambda: _assert(bool(commands(marker)), "the command does not run"))
        process.kill()
        process.wait()

        wait_until(lambda: _assert(not commands(marker), "the command goes on"))


def test_an_interrupt_reaches_a_command_without_a_terminal(cluster: Cluster, tmp_path: Path) -> None:
    task = cluster.task_on("w1", "says")
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with running(cluster.ctl, tmp_path, "task", "exec", task, "--", "sh", "-c", script) as (process, out, _):
        wait_until(lambda: _assert("ready" in out.read_text(), "it is not ready"))
        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 5
    assert "interrupted" in out.read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nosuch", "--", "ls"), 1, "task nosuch not found"),
        (("TASK", "--", "nosuchprogram"), 125, "'nosuchprogram': No such file or directory"),
        (("TASK", "-w", "/nosuch", "--", "ls"), 125, "No such file or directory"),
        (("TASK", "-e", "A", "--", "ls"), 125, "write it as NAME=VALUE"),
        (("TASK", "-it", "--", "ls"), 125, "standard input is not a terminal"),
        (("TASK", "ls", "-l"), 2, "put -- before the command"),
        (("TASK",), 2, "COMMAND"),
    ],
)
def test_what_can_not_be_run_is_one_line(cluster: Cluster, words: tuple[str, ...], code: int, said: str) -> None:
    task = cluster.task_on("w1", "says")

    done = cluster.ctl.run("task", "exec", *(task if word == "TASK" else word for word in words), stdin=b"")

    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1


def test_commands_are_in_the_audit_log_of_the_leader_without_secrets(cluster: Cluster) -> None:
    task = cluster.task_on("w1", "says")
    cluster.nodes[cluster.follower].swarmctl("task", "exec", task, "-e", "A=hunter2", "--", "echo", "--token=hunter2")

    path = cluster.nodes[cluster.leader].state_dir / "audit.log"
    text = path.read_text()
    start, end = [json.loads(line) for line in text.splitlines()][-2:]
    assert (start["event"], start["task"], start["command"]) == ("exec.start", task, ["echo", "--token=…"])
    assert (end["event"], end["exit_code"], end["id"]) == ("exec.end", 0, start["id"])
    assert start["manager"] in {row["ID"] for row in cluster.ctl.table("node", "ls")} and start["env"] == ["A"]
    assert "hunter2" not in text and path.stat().st_mode & 0o777 == 0o600


def test_stats_show_what_tasks_use(cluster: Cluster) -> None:
    rows = cluster.ctl.table("task", "stats", "--service", "talks", "--no-stream")
    one = json.loads(cluster.ctl("task", "stats", cluster.task_on("w1", "says"), "-o", "json"))

    assert len(rows) == 4 and {row["Node"] for row in rows} == {"m1", "m2", "m3", "w1"}
    assert all(row["CPU"].endswith("%") and "iB" in row["Memory / Limit"] for row in rows)
    assert len(one) == 1 and int(one[0]["pids"]) >= 1


def test_readers_and_commands_that_come_and_go_leave_nothing_behind(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [cluster.task_on(name, "says") for name in ("m1", "w1")]

    def come_and_go(times: int) -> None:
        for number in range(times):
            ctl = cluster.nodes[("m1", "m2")[number % 2]].swarmctl
            script = "echo ready; exec sleep 86396"
            exec_ = ("task", "exec", tasks[number // 2 % 2], "-i", "--", "sh", "-c", script)
            for asked in (("service", "logs", "-f", "talks"), exec_):
                with running(ctl, tmp_path, *asked) as (_, out, _):
                    wait_until(lambda out=out: _assert(out.stat().st_size > 0, "nothing came"))  # type: ignore[misc]
            ctl("task", "exec", tasks[number // 2 % 2], "--", "true")

    def held() -> dict[str, tuple[int, int, int]]:
        """Descriptors, threads and MiB of each node."""
        processes = {name: psutil.Process(node.pid) for name, node in cluster.nodes.items()}
        return {
            name: (each.num_fds(), each.num_threads(), each.memory_info().rss >> 20) for name, each in processes.items()
        }

    come_and_go(4)
    before = held()

    come_and_go(12)

    def nothing_is_left() -> None:
        now = held()
        for name in cluster.nodes:
            files, threads, mib = (late - early for late, early in zip(now[name], before[name], strict=True))
            assert files <= 4 and threads <= 2 and mib <= 10, (before, now)
        assert not commands("86396")

    wait_until(nothing_is_left)


def test_a_follower_of_logs_goes_on_when_the_leader_stops(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader
    asked = cluster.nodes[cluster.follower].swarmctl
    with running(asked, tmp_path, "service", "logs", "-f", "talks", "--no-task-ids") as (process, out, err):
        wait_until(lambda: _assert(out.read_text().count("@w1 |") > 5, "no line came"))
        cluster.nodes[leader].stop()
        seen = out.read_text().count("@w1 |")

        wait_until(lambda: _assert(out.read_text().count("@w1 |") > seen + 20, err.read_text()), seconds=40)
        assert process.poll() is None

    found = [int(number) for number in re.findall(r"@w1 \| out (\d+)$", out.read_text(), re.MULTILINE)]
    assert found == list(range(len(found)))
    cluster.nodes[leader].start()
    cluster.nodes[leader].wait_ready()


def test_a_command_whose_leader_stops_ends_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader
    asked = cluster.nodes[cluster.follower].swarmctl
    task = cluster.task_on("w1", "says")
    marker = "86393"
    with running(asked, tmp_path, "task", "exec", task, "--", "sleep", marker) as (process, _, err):
        wait_until(lambda: _assert(bool(commands(marker)), "the command does not run"))
        cluster.nodes[leader].stop()

        assert process.wait(20) == 125
        wait_until(lambda: _assert(not commands(marker), "the command goes on"))
    assert err.read_text().startswith("Error: ") and err.read_text().count("\n") == 1
    cluster.nodes[leader].start()
    cluster.nodes[leader].wait_ready()


def test_a_follower_gets_what_was_printed_while_an_agent_was_away(cluster: Cluster, tmp_path: Path) -> None:
    task = cluster.task_on("w1", "talks")
    with running(cluster.ctl, tmp_path, "task", "logs", "-f", "--raw", task) as (process, out, err):
        wait_until(lambda: _assert(out.read_text().count("out ") > 5, "no line came"))
        cluster.nodes["w1"].kill()
        wait_until(lambda: _assert("Warning: node w1 disconnected unexpectedly" in err.read_text(), err.read_text()))
        seen = out.read_text().count("out ")
        cluster.nodes["w1"].start()

        wait_until(lambda: _assert(out.read_text().count("out ") > seen + 20, err.read_text()), seconds=40)
        assert process.poll() is None

    found = [int(number) for number in re.findall(r"^out (\d+)$", out.read_text(), re.MULTILINE)]
    assert found == list(range(len(found)))
    cluster.nodes["w1"].wait_ready()


def test_one_dead_node_is_a_warning_and_not_a_failure(cluster: Cluster) -> None:
    cluster.nodes["w1"].kill()

    done = cluster.ctl.run("service", "logs", "says", "--raw")

    assert done.returncode == 0
    assert done.stdout.count(b"said") == 3
    assert b"Warning: node w1 is not available" in done.stderr
    cluster.nodes["w1"].start()
    cluster.nodes["w1"].wait_ready()


def commands(argument: str) -> list[int]:
    """Pids of processes with just this argument."""
    return [
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if (each.info["cmdline"] or ["", ""])[-1] == argument and each.info["cmdline"][0] == "sleep"
    ]


def _assert(fact: bool, words: str) -> None:
    assert fact, words
