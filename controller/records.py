"""What is remembered of each model between turns: popularity, failures, load times. Pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from controller.spec import ModelName, ModelSpec
from controller.state import NEVER_RAN, Exit, LeaseId, RunId

MAX_BACKOFF_S: Final = 30.0
REST_S: Final = 300.0
"""How long a model that keeps failing is left alone before one more try."""
HALF_LIFE_S: Final = 600.0
"""After this long without a call, a model's popularity counts half."""
SMOOTHING: Final = 0.2
"""How much the newest request counts for what a request usually takes."""


@dataclass(slots=True, kw_only=True)
class Record:
    """What is remembered of one model between turns."""

    load_s: float
    service_s: float = 1.0
    frequency: float = 0.0
    """How popular it was at `counted_s`; it fades from then on."""
    counted_s: float = 0.0
    last_used_s: float = 0.0
    floor: float = 0.0
    """The age of the cache when the model was last used: the L of GDSF."""
    run_before: RunId = NEVER_RAN
    """The run the container showed when the model became desired: a later run that has ended is a failure."""
    ready_since_s: float | None = None
    gate: int = 0
    """The last caller who had come when it became ready: its turn is theirs."""
    failures: int = 0
    retry_at_s: float = 0.0
    resting: bool = False
    last_exit: Exit | None = None
    served: int = 0
    proven: bool = False
    """It has served as it is described now."""
    leases: set[LeaseId] = field(default_factory=set)

    def popularity(self, now: float) -> float:
        """Return how often it was asked for lately."""
        return float(self.frequency * 0.5 ** ((now - self.counted_s) / HALF_LIFE_S))

    def call(self, now: float, floor: float) -> None:
        """Count a call."""
        self.frequency, self.counted_s = self.popularity(now) + 1.0, now
        self.last_used_s, self.floor = now, floor

    def serve(self, served_s: float) -> None:
        """Count a request that was answered to the end: whatever failed before, it works."""
        self.forgive()
        self.service_s += SMOOTHING * (served_s - self.service_s)
        self.served += 1
        self.proven = True

    def fail(self, ended: Exit, now: float, *, backoff_s: float, max_failures: int) -> None:
        """Count a failure: the pause doubles with each one, and after the last one allowed the model rests."""
        self.failures += 1
        self.last_exit = ended
        self.resting = self.failures >= max_failures
        doublings = min(self.failures - 1, 16)  # beyond that the pause is the longest one anyway
        self.retry_at_s = now + (REST_S if self.resting else min(MAX_BACKOFF_S, backoff_s * 2.0**doublings))

    def forgive(self) -> None:
        """Forget the failures."""
        self.failures, self.resting, self.retry_at_s = 0, False, 0.0

    def leaves(self, spec: ModelSpec) -> bool:
        """Say whether another engine takes over: this one has failed as often as it may, and has never served."""
        return self.resting and not self.proven and spec.choice is not None and bool(spec.choice.successor)

    @property
    def how_failed(self) -> str:
        """Say how it failed the last time."""
        ended = self.last_exit
        assert ended is not None, "only who has failed rests"
        return f"{ended.cause.value}, status {ended.code}{': ' + ended.detail if ended.detail else ''}"

    def why_resting(self, model: ModelName) -> str:
        """Say how often and how it failed, and what to do."""
        return (
            f"{model} failed {self.failures} times in a row, the last time by: {self.how_failed}; it is not started again for "
            f"now. See `windlass logs {model}`, then `windlass load {model}`"
        )


class Records:
    """The records of the models that were ever asked about."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._records: dict[ModelName, Record] = {}

    def of(self, model: ModelName, spec: ModelSpec | None) -> Record:
        """Return the record of *model*, begun from *spec* if it has none."""
        record = self._records.get(model)
        if record is None:
            record = self._records[model] = Record(load_s=spec.load_s if spec else 1.0)
        return record

    def follow(self, before: Mapping[ModelName, ModelSpec], after: Mapping[ModelName, ModelSpec], keep: Set[ModelName]) -> None:
        """Forget who left the catalog, but for *keep*, and give those another chance whose files have changed."""
        for model in [m for m in self._records if m not in after and m not in keep]:
            del self._records[model]
        for model, record in self._records.items():
            if model in before and model in after and _made_of(before[model]) != _made_of(after[model]):
                record.forgive()
                record.load_s, record.proven = after[model].load_s, False


def _made_of(spec: ModelSpec) -> tuple[str, str]:
    return spec.engine, spec.digest
