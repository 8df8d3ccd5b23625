"""What a command beside a task is before it becomes its program. Run by `exec.py`, with the command's own streams:

    python -I -S exec_launcher.py REPORT PID TTY DIR COUNT ENV… COMMAND…

It takes on everything that makes the process PID the task's: user, groups, limits, environment, folder. REPORT is a
pipe to the agent: it ends without a word when the program runs, and else says what the system said. Stands alone, like
launcher.py.
"""

import fcntl
import os
import resource
import signal
import sys
import termios


def status(pid: int) -> "dict[str, str]":
    """What the system says of a process, by the names it gives."""
    with open(f"/proc/{pid}/status") as file:
        pairs = (line.rstrip("\n").partition(":\t") for line in file)
        return {name: value for name, _, value in pairs}


def join_cgroups(pid: int) -> None:
    """The limits that are kept by groups count for the command, too."""
    with open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            place = "/sys/fs/cgroup"
            if controllers:
                place = f"{place}/{controllers.removeprefix('name=')}"
            elif os.path.isdir("/sys/fs/cgroup/unified"):
                place = f"{place}/unified"
            try:
                with open(f"{place}{path}/cgroup.procs", "w") as procs:
                    procs.write(str(os.getpid()))
            except OSError:
                # The group that this process is in already, or a hierarchy that is not mounted.
                continue


LIMITS = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
}


def limits(pid: int) -> "list[tuple[int, tuple[int, int]]]":
    """As the process has them now. The file tells what the call would not tell of another user's process."""
    found = []
    with open(f"/proc/{pid}/limits") as file:
        for line in file:
            name = line[:26].rstrip()
            if name in LIMITS:
                soft, hard = (-1 if word == "unlimited" else int(word) for word in line[26:].split()[:2])
                found.append((LIMITS[name], (soft, hard)))
    return found


def take_limits(found: "list[tuple[int, tuple[int, int]]]") -> None:
    """What is lower than here; a limit that is higher there can't be had, and need not."""
    for number, (soft, hard) in found:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):
            continue


class FolderError(OSError):
    """The command can't be run where it should."""


def become(report: int, pid: int, tty: bool, folder: bytes, extra: "list[bytes]", command: "list[bytes]") -> None:
    """Take on the task's ways and run the command. Returns never, or raises OSError."""
    facts = status(pid)
    with open(f"/proc/{pid}/environ", "rb") as file:
        entries = [entry for entry in file.read().split(b"\0") if b"=" in entry]
    pairs = (entry.partition(b"=") for entry in [*entries, *extra])
    environment = {name: value for name, _, value in pairs}
    if tty:
        environment.setdefault(b"TERM", b"xterm")
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    home = os.open(f"/proc/{pid}/cwd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    join_cgroups(pid)
    take_limits(limits(pid))
    uid, gid = int(facts["Uid"].split()[1]), int(facts["Gid"].split()[1])
    if os.geteuid() == 0:
        os.setgroups([int(group) for group in facts["Groups"].split()])
        os.setgid(gid)
        os.setuid(uid)
    os.fchdir(home)
    if folder:
        try:
            os.chdir(folder)
        except OSError as error:
            raise FolderError(error.errno, error.strerror) from error
    os.umask(0o022)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.set_inheritable(report, False)
    program = command[0]
    path = environment.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin")
    places = [program] if b"/" in program else [os.path.join(each, program) for each in path.split(b":") if each]
    failure: OSError | None = None
    for place in places:
        try:
            os.execve(place, command, environment)
        except (FileNotFoundError, NotADirectoryError) as error:
            failure = failure or error
        except OSError as error:
            failure = error
    raise failure or FileNotFoundError(2, "No such file or directory")


def main() -> None:
    report, pid, tty, folder, count, *words = map(os.fsencode, sys.argv[1:])
    extra, command = words[: int(count)], words[int(count) :]
    try:
        become(int(report), int(pid), tty == b"1", folder, extra, command)
    except FolderError as error:
        code, text = 126, f"the folder {os.fsdecode(folder)!r}: {error.strerror}"
    except FileNotFoundError as error:
        code, text = 127, f"{os.fsdecode(command[0])!r}: {error.strerror}"
    except (OSError, KeyError, ValueError) as error:
        code, text = 126, f"{os.fsdecode(command[0])!r}: {getattr(error, 'strerror', None) or error}"
    os.write(int(report), text.encode(errors="replace")[:4000])
    os._exit(code)


main()
