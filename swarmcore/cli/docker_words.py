"""What users of Docker type here, and what it is called. Loaded only to explain an error; pure data."""

from __future__ import annotations

from collections.abc import Mapping

_LISTS = "a repeatable flag replaces its whole list"
_SERVICE = {
    "": "the image is given with --image, the program and its arguments with --command and --args",
    "-p": "ports are given with --ports NAME:TARGET:PUBLISHED",
    "--publish": "ports are given with --ports NAME:TARGET:PUBLISHED",
    "-e": "environment is given with --env",
    "-d": "it returns at once where --wait is not given",
    "--detach": "it returns at once where --wait is not given",
    "-l": "labels are given with --label",
    "-u": "the user is given with --user",
    "--hosts": "a line of the hosts file is given with --host NAME:ADDRESS",
    "--privileged": "services give single rights, with --cap-add and --security-opt",
    "--health-command": "it is called --health-cmd here",
    "-t": "a terminal is given with --tty",
    "--entrypoint": "it is called --command here",
}
_FILE = {"": "the file is given with --file; without it, standard input is read"}

_WORDS: Mapping[str, Mapping[str, str]] = {
    "swarmctl": {
        "ls": "try `swarmctl service ls`, `swarmctl node ls` or `swarmctl task ls`",
        "ps": "`swarmctl task ls` lists tasks",
        "run": "`swarmctl service create` runs something",
        "init": "`swarmd` starts a swarm",
        "backup": "`swarmctl cluster backup FILE` makes one",
        "restore": "`swarmd --restore FILE` makes a new cluster of a backup",
        "join": "`swarmd --join-addr HOST:4242` joins a swarm",
        "leave": "stop its swarmd, then `swarmctl node remove` it on a manager",
        "swarm": "`swarmctl cluster` has what concerns the whole swarm",
        "info": "`swarmctl cluster inspect` and `swarmctl node ls` tell of the swarm",
        "join-token": "`swarmctl cluster inspect` shows the join tokens",
        "logs": "try `swarmctl service logs SERVICE` or `swarmctl task logs TASK`",
        "exec": "`swarmctl task exec TASK -- COMMAND` runs a command beside a task",
        "stats": "`swarmctl task stats` shows what tasks use",
        "top": "`swarmctl task stats` shows what tasks use",
    },
    "swarmctl cluster": {
        "join-token": "`swarmctl cluster inspect` shows the join tokens",
        "restore": "`swarmd --restore FILE` makes a new cluster of a backup",
    },
    "swarmctl node": {"ps": "`swarmctl node inspect NODE` lists its tasks"},
    "swarmctl service": {
        "ps": "`swarmctl service inspect SERVICE` lists its tasks",
        "scale": "`swarmctl service update SERVICE --replicas N` does it",
        "rollback": "`swarmctl service update SERVICE --rollback` does it",
    },
    "swarmctl service create": _SERVICE,
    "swarmctl service update": _SERVICE
    | {
        "": "one service at a time; what runs is given with --image, --command and --args",
        "--env-add": f"use --env: {_LISTS}",
        "--env-rm": f"use --env: {_LISTS}",
        "--label-add": f"use --label: {_LISTS}",
        "--label-rm": f"use --label: {_LISTS}",
        "--constraint-add": f"use --constraint: {_LISTS}",
        "--constraint-rm": f"use --constraint: {_LISTS}",
        "--publish-add": f"use --ports: {_LISTS}",
        "--publish-rm": f"use --ports: {_LISTS}",
        "--mount-add": f"use --mount: {_LISTS}",
        "--mount-rm": f"use --mount: {_LISTS}",
        "--host-add": f"use --host: {_LISTS}",
        "--host-rm": f"use --host: {_LISTS}",
        "--group-add": f"use --group: {_LISTS}",
        "--group-rm": f"use --group: {_LISTS}",
        "--dns-add": f"use --dns: {_LISTS}",
        "--dns-rm": f"use --dns: {_LISTS}",
        "--sysctl-add": f"use --sysctl: {_LISTS}",
        "--sysctl-rm": f"use --sysctl: {_LISTS}",
        "--ulimit-add": f"use --ulimit: {_LISTS}",
        "--ulimit-rm": f"use --ulimit: {_LISTS}",
        "--container-label-add": f"use --container-label: {_LISTS}",
        "--container-label-rm": f"use --container-label: {_LISTS}",
        "--secret-add": "it is called --add-secret here",
        "--secret-rm": "it is called --rm-secret here",
        "--config-add": "it is called --add-config here",
        "--config-rm": "it is called --rm-config here",
    },
    "swarmctl node update": {
        "--availability": "`swarmctl node drain`, `pause` and `activate` do it",
        "--role": "`swarmctl node promote` and `demote` do it",
        "--label-add": f"use --label: {_LISTS}",
        "--label-rm": f"use --label: {_LISTS}",
    },
    "swarmctl task exec": {"*": "put -- before the command, whose flags are its own"},
    "swarmctl secret create": _FILE,
    "swarmctl config create": _FILE,
    "swarmctl network create": {"": "the name is given with --name"},
}


def explained(command_path: str, word: str) -> str:
    """What to do instead of `word` after this command; `""` stands for one argument too many. Empty where unknown."""
    words = _WORDS.get(command_path, {})
    return words.get(word, words.get("*", ""))
