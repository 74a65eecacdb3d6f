"""Everything Frond raises on purpose.

FrondError
├── UserError                 somebody's input is at fault; carries a reason code and a sentence
│   ├── RasterRejected        one image cannot be processed; the job goes on without it
│   ├── JobRejected           a request or an event cannot become part of a job
│   └── ModelRejected         a model folder or reference does not fit
├── UnreadableEvent           bytes on a topic that are no event: goes to the dead-letter topic
├── Outage                    something does not answer: wait, then try again
│   ├── StoreUnavailable      the object store
│   │   └── StoreFull         it answers that it has no room: wait until somebody makes some
│   ├── BrokerUnavailable     Kafka
│   ├── DatabaseUnavailable   the read model's
│   └── ModelUnavailable      the server that runs a model
└── ObjectMissing             an object that a reference names is not there
"""

from __future__ import annotations

from typing import Any

from frond.contracts.reasons import Reason


class FrondError(Exception):
    """The root of the tree. All of it can be sent from process to process."""

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception is pickled as a call of its class with its base's arguments: not ours
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[FrondError], args: tuple[object, ...]) -> FrondError:
    return kind.__new__(kind, *args)


class UserError(FrondError):
    """Input that somebody can mend.

    Attributes:
        reason: a code out of :class:`Reason`; stable, for programs.
        detail: one or two sentences for the person who sent the input, saying what to do.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class RasterRejected(UserError):
    """One image cannot be processed; the rest of its job is not touched."""


class JobRejected(UserError):
    """A request or an event cannot become (part of) a job."""


class ModelRejected(UserError):
    """A model folder, its graph or a reference to a model does not fit."""


class UnreadableEvent(FrondError):
    """Bytes on a topic that are no event. The message says what was wrong with them."""


class Outage(FrondError):
    """Something that the work needs does not answer. The work is not at fault, and waits."""


class StoreUnavailable(Outage):
    """The object store does not answer within its deadline."""


class StoreFull(StoreUnavailable):
    """The object store takes no more until there is room; what lies there can be read."""


class BrokerUnavailable(Outage):
    """Kafka does not answer within its deadline."""


class DatabaseUnavailable(Outage):
    """The read model's database does not answer, or has no room."""


class ModelUnavailable(Outage):
    """The server that runs a model does not answer within its deadline, or has no time for it.

    Attributes:
        told: what of it users may read: ``HTTP 500: out of memory``, on one line of at most 240
            characters, without the server's address. The message is for operators.
    """

    def __init__(self, message: str, told: str = "") -> None:
        super().__init__(message)
        self.told = told


class ObjectMissing(FrondError):
    """The object that a key names is not in the store."""
