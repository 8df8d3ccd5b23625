"""What is written down of commands, and what never is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from swarmcore.errors import FailedPreconditionError
from swarmcore.execbroker import audit
from swarmcore.execbroker.audit import AuditLog, shown_command, shown_names


def test_records_are_lines_of_json_that_only_the_owner_reads(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")

    log.record("exec.start", task="t1", command=["ls", "-l"])
    log.record("exec.end", task="t1", exit_code=0)

    path = tmp_path / "audit.log"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in records] == ["exec.start", "exec.end"]
    assert records[0]["command"] == ["ls", "-l"] and records[0]["time"].endswith("Z")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_file_becomes_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 300)
    log = AuditLog(tmp_path / "audit.log")

    for number in range(100):
        log.record("exec.start", number=number)

    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.log", *(f"audit.log.{n}" for n in range(1, audit.KEPT + 1))]
    assert all(file.stat().st_size < 400 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert json.loads(files[0].read_text().splitlines()[-1])["number"] == 99


def test_where_nothing_can_be_written_nothing_may_be_done(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "missing" / "audit.log")

    with pytest.raises(FailedPreconditionError, match="nothing is run that is not recorded"):
        log.record("exec.start")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["ls", "-l", "/tmp"], ["ls", "-l", "/tmp"]),
        (["mysql", "--password=hunter2"], ["mysql", "--password=…"]),
        (["mysql", "--password", "hunter2", "db"], ["mysql", "--password", "…", "db"]),
        (["env", "API_TOKEN=abc", "run"], ["env", "API_TOKEN=…", "run"]),
        (["curl", "https://me:hunter2@host/x"], ["curl", "https://…@host/x"]),
        (["echo", "SWMTKN-1-aaa-bbb"], ["echo", "…"]),
        (["mysqldump", "-phunter2", "-uroot"], ["mysqldump", "-p…", "-uroot"]),
        (["mkdir", "-p/tmp/x"], ["mkdir", "-p/tmp/x"]),
        (
            ["sh", "-c", "mysql -phunter2 --password hunter2 -e x; cat /etc/passwd"],
            ["sh", "-c", "mysql -p… --password … -e x; cat /etc/passwd"],
        ),
        (
            ["sh", "-c", "export AWS_SECRET='hunter 2' A=b; curl -H 'Authorization: Bearer hunter2' host"],
            ["sh", "-c", "export AWS_SECRET=… A=b; curl -H 'Authorization: …' host"],
        ),
        (["sh", "-c", "x" * 1000], ["sh", "-c", "x" * audit.MAX_ARGUMENT + "…"]),
    ],
)
def test_what_looks_like_a_secret_is_not_written_down(command: list[str], shown: list[str]) -> None:
    assert shown_command(command) == shown


def test_long_commands_are_cut_and_variables_are_named_only() -> None:
    assert shown_command(["x"] * 100)[-1] == "… and 36 more"
    assert shown_names(["A=secret", "B=c=d"]) == ["A", "B"]


@pytest.mark.parametrize("words", ["passpass", "-p ", "mysql ", "token ", "'", "key=", "a.-"])
def test_a_command_made_to_be_looked_at_for_long_is_not(words: str) -> None:
    began = time.process_time()

    shown_command([words * 10_000] * 1_000)

    assert time.process_time() - began < 1.0
