"""What a task's process is before it becomes its program. Run by the supervisor: `python -I -S launcher.py`.

Stands alone and imports little, since it is in the way of every start. The working folder is the task's folder;
standard output is a pipe to the agent: it ends without a word when the program runs, and else says what the system
said. Standard error is nothing to write to: held open, it keeps the task's groups from being swept away before we are
in them.
"""

import os
import signal

ALREADY = b"already started"


def identity(pid: str) -> str:
    """`pid start`, as processes.py reads it."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    fields = text[text.rindex(b")") + 2 :].split()
    return f"{os.getpid() if pid == 'self' else pid} {fields[19].decode()}"


def say_who_we_are() -> None:
    """Make `started`; raises FileExistsError when the task was started before."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    own = f"started.{os.getpid()}"
    with open(own, "w") as file:
        file.write(f"{boot}\n{identity('self')}\n{identity(str(os.getppid()))}\n")
    try:
        os.link(own, "started")
    finally:
        os.unlink(own)


def limit(ulimits: bytes) -> None:
    """As root, since it may raise them; whoever is not root gets what he may have."""
    import resource

    for entry in ulimits.split(b","):
        name, number, soft, hard = entry.decode().split(":")
        try:
            resource.setrlimit(int(number), (int(soft), int(hard)))
        except (OSError, ValueError) as error:
            raise OSError(0, f"process.ulimits: {name}={soft}:{hard}: {error}") from error


def become() -> None:
    """Take on the program's folder, user, streams and environment, and run it. Returns never, or raises OSError."""
    with open("launch", "rb") as file:
        uid, gid, groups, cgroups, ulimits, folder, program, count, *rest = file.read().split(b"\0")
    arguments, environment = rest[: int(count)], rest[int(count) :]
    out = os.open("stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    err = os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.chdir(folder)
    for cgroup in filter(None, cgroups.split(b"\n")):
        with open(cgroup + b"/cgroup.procs", "wb", buffering=0) as procs:
            procs.write(b"0")
    if ulimits:
        limit(ulimits)
    if uid:
        try:
            os.setgroups([int(group) for group in groups.split(b",") if group])
            os.setgid(int(gid))
            os.setuid(int(uid))
        except OSError as error:
            raise OSError(error.errno, f"process.user: {error.strerror}: {int(uid)}:{int(gid)}") from error
    os.umask(0o022)
    os.dup2(out, 1)
    os.dup2(err, 2)
    # The shell lets background commands ignore some signals, Python others; a program starts with none ignored.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execve(program, arguments, dict(entry.split(b"=", 1) for entry in environment))


def main() -> None:
    report = os.dup(1)  # Not inherited: it ends when the program runs.
    try:
        os.setsid()
        say_who_we_are()
    except FileExistsError:
        os.write(report, ALREADY)
        # This supervisor has nothing to supervise, and must not write down an exit code.
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(127)
    try:
        here = os.open(".", os.O_RDONLY)
        become()
    except OSError as error:
        name = f": {os.fsdecode(error.filename)!r}" if error.filename else ""
        text = f"{error.strerror}{name}".encode()
        os.fchdir(here)
        with open("error", "wb") as file:
            file.write(text)
        try:
            os.write(report, text)
        except BrokenPipeError:
            pass  # The agent was killed; its successor reads the file.
    os._exit(127)


main()
