"""Lines of logs as they are printed."""

from __future__ import annotations

from typing import Any

from swarmcore.api.logbroker_pb2 import LogMessage, LogStream
from swarmcore.cli.log_lines import COLOURS, LogPrinter, Style, timestamp


def line(data: bytes, *, task: str = "abcdefghijklmnopqrstuvwxy", is_error: bool = False, at: int = 0) -> LogMessage:
    stream = LogStream.LOG_STREAM_STDERR if is_error else LogStream.LOG_STREAM_STDOUT
    message = LogMessage(data=data, stream=stream)
    message.context.task_id = task
    message.timestamp.FromNanoseconds(at)
    return message


def printed(*lines: LogMessage, **style: Any) -> tuple[bytes, bytes]:
    """What stands on stdout and on stderr."""
    names = {"abcdefghijklmnopqrstuvwxy": ("web.1", "n1"), "bbbbbbbbbbbbbbbbbbbbbbbbb": ("web.10", "n2")}
    printer = LogPrinter(Style(**style), lambda line: names[line.context.task_id])
    out = {False: b"", True: b""}
    for each in lines:
        is_error, data = printer.bytes_of(each)
        out[is_error] += data
    return out[False], out[True]


OTHER = "b" * 25


def test_a_line_says_whose_it_is() -> None:
    assert printed(line(b"hi\n")) == (b"web.1.abcdefghijkl@n1 | hi\n", b"")


def test_ids_are_shown_in_full_or_not_at_all() -> None:
    assert printed(line(b"hi\n"), truncate=False)[0] == b"web.1.abcdefghijklmnopqrstuvwxy@n1 | hi\n"
    assert printed(line(b"hi\n"), task_ids=False)[0] == b"web.1@n1 | hi\n"


def test_names_stand_in_one_column_as_soon_as_the_longest_is_known() -> None:
    out, _ = printed(line(b"a\n"), line(b"b\n", task=OTHER), line(b"c\n"), task_ids=False)

    assert out == b"web.1@n1 | a\nweb.10@n2 | b\nweb.1@n1  | c\n"


def test_raw_is_what_was_written_and_nothing_else() -> None:
    data = bytes(range(256))

    assert printed(line(data), line(data, is_error=True), raw=True, timestamps=True) == (data, data)


def test_stdout_and_stderr_stay_apart() -> None:
    assert printed(line(b"o\n"), line(b"e\n", is_error=True), task_ids=False) == (b"web.1@n1 | o\n", b"web.1@n1 | e\n")


def test_the_time_of_a_line_is_exact_to_the_nanosecond() -> None:
    out, _ = printed(line(b"hi\n", at=1_700_000_000_000_000_001), timestamps=True, task_ids=False)

    assert out == b"2023-11-14T22:13:20.000000001Z web.1@n1 | hi\n"


def test_a_time_outside_of_the_calendar_is_shown_all_the_same() -> None:
    message = line(b"")
    message.timestamp.seconds = 2**60

    assert timestamp(message) == f"{2**60}.000000000Z"


def test_pieces_of_a_line_are_joined() -> None:
    assert printed(line(b"one "), line(b"line\n"), task_ids=False)[0] == b"web.1@n1 | one line\n"


def test_what_another_task_writes_begins_on_a_line_of_its_own() -> None:
    out, _ = printed(line(b"no end"), line(b"b\n", task=OTHER), line(b"then\n"), task_ids=False)

    assert out == b"web.1@n1 | no end\nweb.10@n2 | b\nweb.1@n1  | then\n"


def test_the_other_stream_breaks_a_line_only_on_the_same_screen() -> None:
    lines = (line(b"a "), line(b"e\n", is_error=True), line(b"b\n"))

    assert printed(*lines, task_ids=False) == (b"web.1@n1 | a b\n", b"web.1@n1 | e\n")
    assert printed(*lines, task_ids=False, is_together=True) == (b"web.1@n1 | a web.1@n1 | b\n", b"\nweb.1@n1 | e\n")


def test_colours_are_used_where_they_are_wanted_and_stay_with_a_task() -> None:
    plain = printed(line(b"a\n"), line(b"e\n", is_error=True))
    painted = printed(line(b"a\n"), line(b"a\n"), colour=(True, False))[0]

    assert b"\x1b" not in plain[0] + plain[1]
    first, second = painted.splitlines()
    assert first == second and first.startswith(b"\x1b[") and first.endswith(b" |\x1b[0m a")


def test_details_are_shown_where_there_are_any() -> None:
    message = line(b"hi\n")
    message.attrs.add(key="tier", value="front\nend")
    message.attrs.add(key="a", value="b")

    assert printed(message, line(b"ho\n"), details=True, task_ids=False)[0] == (
        b"web.1@n1 | a=b,tier=front end hi\nweb.1@n1 | ho\n"
    )


def test_each_task_has_a_colour_of_its_own_while_there_are_enough() -> None:
    tasks = [f"{number:025d}" for number in range(len(COLOURS))]
    printer = LogPrinter(Style(colour=(True, True)), lambda line: (f"web.{line.context.task_id}", "n1"))

    shown = [printer.bytes_of(line(b"x\n", task=task))[1] for task in [*tasks, *tasks]]
    colours = [text.partition(b"m")[0] for text in shown]

    assert len(set(colours[: len(tasks)])) == len(COLOURS)
    assert colours[: len(tasks)] == colours[len(tasks) :]
