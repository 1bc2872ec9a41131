"""
Every error Windlass raises on purpose.

    WindlassError
    ├── ConfigError          the configuration cannot be used; `problems` lists everything that is wrong with it
    ├── ModelError           a model's folder cannot be served
    │   └── WeightsError     its weights file is truncated, lies about its sizes, or is not what it says
    ├── EngineError          the container engine refused, failed or vanished
    │   ├── EngineUnavailableError   it does not answer at all; the same call may succeed later
    │   └── ContainerMissingError    the container asked about is not there
    ├── DeviceChangedError   the box is not any more what the controller was started on
    ├── StoreError           the state database or a file of ours cannot be read or written
    ├── BundleError          a bundle of models is damaged, incomplete, or cannot be written
    │   └── BundleRefusedError       it is not packed or taken as it was asked; nothing was changed
    ├── ProtocolError        a message on the controller's socket is not one we know
    ├── UnreachableError     the command line cannot reach the gateway or the controller
    ├── AnswerError          the gateway or the controller answered the command line with an error
    └── RefusedError         a request is refused, with the reason and, where it makes sense, when to come back

A text says what was wanted, what came, and what to do. HTTP statuses exist in `gateway/problems.py` alone; a refusal carries
a `Reason`, and the table there turns it into a status.
"""

import enum
from collections.abc import Mapping, Sequence


class WindlassError(Exception):
    """The root of everything raised here on purpose."""


class ConfigError(WindlassError):
    """
    The configuration cannot be used.

    Attributes:
        problems: everything that is wrong with it, one sentence each.

    """

    def __init__(self, problems: Sequence[str]) -> None:
        """Join the problems into one text, one a line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ModelError(WindlassError):
    """A model's folder cannot be served: no weights, two formats, a manifest with unknown keys."""


class WeightsError(ModelError):
    """A weights file is truncated, lies about its sizes, or is not of the format its name says."""


class EngineError(WindlassError):
    """The container engine refused or failed."""


class EngineUnavailableError(EngineError):
    """The container engine does not answer; the same call may succeed later."""


class ContainerMissingError(EngineError):
    """The container asked about is not there: never made, or removed by hand."""


class DeviceChangedError(WindlassError):
    """The box is not any more what it was: a driver was updated, or the container engine has another way to its GPU."""


class StoreError(WindlassError):
    """The state database or one of our own files cannot be read or written."""


class BundleError(WindlassError):
    """A bundle of models is damaged, incomplete, or cannot be written."""


class BundleRefusedError(BundleError):
    """A bundle is not packed or taken as it was asked: no room, another model of that name, a name that leads elsewhere."""


class ProtocolError(WindlassError):
    """A message on the controller's socket is not one we know."""


class UnreachableError(WindlassError):
    """The gateway or the controller cannot be reached from the command line: not started, elsewhere, or no permission."""


class AnswerError(WindlassError):
    """
    The gateway or the controller answered the command line with an error.

    Attributes:
        code: the machine-readable kind of it, if it had one.
        refused: it was refused as it was asked; otherwise it was tried and failed.

    """

    def __init__(self, message: str, *, code: str | None, refused: bool) -> None:
        """Keep the parts beside the text: the exit code depends on them."""
        super().__init__(message)
        self.code = code
        self.refused = refused


class Reason(enum.StrEnum):
    """Why a request is refused; each has one HTTP status, in `gateway/problems.py`."""

    MALFORMED = "malformed"
    """The request itself is wrong."""
    UNKNOWN_MODEL = "unknown_model"
    """No model of this name is registered."""
    NOT_ELIGIBLE = "not_eligible"
    """The model exists but cannot serve this: the wrong API path, too long a prompt, a field its engine refuses."""
    CONFLICT = "conflict"
    """What is asked contradicts what is: unloading a pinned or busy model."""
    NEVER_FITS = "never_fits"
    """The model is larger than the budget leaves beside what is pinned."""
    MEMORY_SHORT = "memory_short"
    """Other programs on the box leave too little memory for this model just now."""
    QUEUE_FULL = "queue_full"
    """As many callers wait as may wait."""
    TOO_LATE = "too_late"
    """The caller's deadline is earlier than anything that can be promised."""
    WORKER_FAILED = "worker_failed"
    """The worker was killed, ran out of memory or crashed before it could answer."""
    UNAVAILABLE = "unavailable"
    """Not now: the engine is away, the controller is starting, the model is in a crash loop."""


class RefusedError(WindlassError):
    """
    A request is refused before its first byte is answered.

    Attributes:
        reason: which kind of refusal this is.
        retry_after_s: when asking again makes sense, if it does.
        details: the figures of the text, for programs.

    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after_s: float | None = None,
        details: Mapping[str, int | float | str] | None = None,
    ) -> None:
        """Keep the parts beside the text, for whoever turns this into an answer."""
        super().__init__(message)
        self.details = dict(details or {})
        self.reason = reason
        self.retry_after_s = retry_after_s
