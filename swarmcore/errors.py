"""One tree of errors: a class stands for what the caller does next, and maps to one gRPC status.

SwarmError                      a bug or something nobody foresaw: report it        UNKNOWN
├── InvalidArgumentError        change the request                                  INVALID_ARGUMENT
├── NotFoundError               name something that exists                          NOT_FOUND
├── AlreadyExistsError          choose another name                                 ALREADY_EXISTS
├── PermissionDeniedError       ask someone who may                                 PERMISSION_DENIED
│   └── NodeRemovedError        join again, with an empty state directory           PERMISSION_DENIED
├── FailedPreconditionError     change the cluster first                            FAILED_PRECONDITION
├── ResourceExhaustedError      wait, or send less                                  RESOURCE_EXHAUSTED
├── SequenceConflictError       read again, then write                              ABORTED
├── AbortedError                try the whole operation again                       ABORTED
├── OutOfRangeError             start again from the present                       OUT_OF_RANGE
├── UnimplementedError          this will never work here                           UNIMPLEMENTED
├── UnavailableError            ask again, here or elsewhere                        UNAVAILABLE
│   └── NotLeaderError          ask the leader: nothing was done                    UNAVAILABLE
│       └── LostLeadershipError look whether it was done, then ask the leader       UNAVAILABLE
├── DeadlineError               ask again, the answer did not come in time          DEADLINE_EXCEEDED
├── InternalError               look at the log                                     INTERNAL
│   └── DamagedStateError       restore the state directory or join again           INTERNAL
└── ConfigurationError          change a flag or a file, then start again           FAILED_PRECONDITION
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """gRPC status codes by number, so that this module does not import gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class SwarmError(Exception):
    """The root. Its text is one line for a user: lower case, values with `!r`, and what to do next."""

    status: ClassVar[Status] = Status.UNKNOWN
    retryable: ClassVar[bool] = False


class InvalidArgumentError(SwarmError):
    """The request can never succeed as it is. The text names the field."""

    status = Status.INVALID_ARGUMENT


class NotFoundError(SwarmError):
    """What the request names does not exist."""

    status = Status.NOT_FOUND


class AlreadyExistsError(SwarmError):
    """The name or id is taken."""

    status = Status.ALREADY_EXISTS


class PermissionDeniedError(SwarmError):
    """The caller's role, or its certificate, does not allow this."""

    status = Status.PERMISSION_DENIED


class FailedPreconditionError(SwarmError):
    """The request is well formed, and the cluster is not in a state to do it."""

    status = Status.FAILED_PRECONDITION


class ResourceExhaustedError(SwarmError):
    """A bound is reached (message, transaction, queue, disk). Nothing was changed."""

    status = Status.RESOURCE_EXHAUSTED


class SequenceConflictError(SwarmError):
    """The object changed since it was read. Read it again, then write."""

    status = Status.ABORTED
    retryable = True

    def __init__(self, message: str = "update out of sequence") -> None:
        super().__init__(message)


class AbortedError(SwarmError):
    """The operation was cut short; start it again from its beginning."""

    status = Status.ABORTED
    retryable = True


class OutOfRangeError(SwarmError):
    """What was asked to go on from is past, or not there yet. Start again from the present."""

    status = Status.OUT_OF_RANGE


class UnimplementedError(SwarmError):
    """This is not supported here and will not be on another try."""

    status = Status.UNIMPLEMENTED


class UnavailableError(SwarmError):
    """Not now, or not here. Ask again."""

    status = Status.UNAVAILABLE
    retryable = True


class NotLeaderError(UnavailableError):
    """The call needs the leader and this manager is not it, or no longer. Nothing was changed."""


class LostLeadershipError(NotLeaderError):
    """This manager stopped leading before the change was agreed: it may still take effect."""


class DeadlineError(SwarmError):
    """The answer did not come in time; whether it happened is not known."""

    status = Status.DEADLINE_EXCEEDED
    retryable = True


class InternalError(SwarmError):
    """Something that should hold does not. The log says more."""

    status = Status.INTERNAL


class DamagedStateError(InternalError):
    """A file of the state directory can't be trusted. The text names file and offset, and what to do."""


class NodeRemovedError(PermissionDeniedError):
    """The cluster has removed this node: the process ends, with an exit code of its own."""


class ConfigurationError(SwarmError):
    """The process can't start with these flags, files or rights."""

    status = Status.FAILED_PRECONDITION
