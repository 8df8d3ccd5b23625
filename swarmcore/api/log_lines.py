"""Words of managers and agents among the lines of a log stream, where a task's own lines can't be had."""

from __future__ import annotations

from swarmcore.api.logbroker_pb2 import LogMessage, LogStream

WARNING_ATTR = "swarmcore.v1/warning"
"""Key of the attribute that marks such a line, and has its words without the end of line."""


def warning_line(node_id: str, reason: str) -> LogMessage:
    """A line on stderr that says by itself what it is, to clients that don't know the attribute."""
    line = LogMessage(stream=LogStream.LOG_STREAM_STDERR, data=f"warning: {reason}\n".encode())
    line.context.node_id = node_id
    line.timestamp.GetCurrentTime()
    line.attrs.add(key=WARNING_ATTR, value=reason)
    return line
