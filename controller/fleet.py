"""
What the workers are doing: what the engine shows, overlaid with what we are doing to them right now.

An action takes effect some time between its call and its return, and a listing shows some moment between its call and its
return. So an overlay is dropped only by a listing that was asked for after the action had returned.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from controller.drivers.base import Container
from controller.reconcile import Action, Hold, LetGo, Remove, Start, Stop
from controller.spec import ModelName
from controller.state import NEVER_RAN, Exit, ExitCause, RunId, Status, Worker

SIGKILLED: Final = 128 + 9


@dataclass(slots=True, kw_only=True)
class Acting:
    """
    One action under way.

    Attributes:
        action: what is being done.
        since_s: when it began.
        settled_at: how many listings had been asked for when the engine answered; `None` while it has not.

    """

    action: Action
    since_s: float
    settled_at: int | None = None


class Fleet:
    """The workers of this owner. Keeps what the engine cannot tell: readiness, actions under way, why we ended a run."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.acting: dict[ModelName, Acting] = {}
        self._containers: dict[ModelName, Container] = {}
        self._ready: dict[ModelName, tuple[RunId, float]] = {}
        self._verdicts: dict[tuple[ModelName, RunId], Exit] = {}
        self._listings = 0
        self._held: frozenset[ModelName] = frozenset()
        self._before_held: dict[ModelName, RunId] = {}

    def begin_listing(self) -> int:
        """Number a listing that is about to be asked for."""
        self._listings += 1
        return self._listings

    def end_listing(
        self, number: int, containers: Sequence[Container], *, memory_kills: int = 0, held: Collection[ModelName] = ()
    ) -> None:
        """
        Take what listing *number* has shown.

        Args:
            number: of the listing.
            containers: what it has shown.
            memory_kills: how many processes the kernel has killed for want of memory since the listing before.
            held: whose engine waits to be let go.

        """
        self._blame_memory(containers, memory_kills)
        self._containers = {c.model: c for c in containers}
        self._held = frozenset(held)
        for model, acting in list(self.acting.items()):
            if acting.settled_at is not None and number > acting.settled_at:
                del self.acting[model]
        self._ready = {m: (run, s) for m, (run, s) in self._ready.items() if self._runs(m, run)}
        self._verdicts = {
            key: verdict for key, verdict in self._verdicts.items() if key[0] in self._containers and self.run(key[0]) == key[1]
        }

    def begin(self, action: Action, now: float) -> None:
        """Note that an action is under way."""
        self.acting[action.model] = Acting(action=action, since_s=now)
        if isinstance(action, Hold):
            self._before_held[action.model] = self.run(action.model)

    def settle(self, model: ModelName) -> None:
        """Note that the engine has answered; whether well or badly, the next listing tells what became of it."""
        if acting := self.acting.get(model):
            acting.settled_at = self._listings

    def note_ready(self, model: ModelName, run: RunId, now: float) -> None:
        """Note that this run answers."""
        self._ready.setdefault(model, (run, now))
        if self._ready[model][0] != run:
            self._ready[model] = (run, now)

    def judge(self, model: ModelName, run: RunId, verdict: Exit) -> None:
        """Note why we end a run, before we end it: the engine will only say that it was killed."""
        self._verdicts[model, run] = verdict
        self._ready.pop(model, None)

    def just_crashed(self, containers: Sequence[Container]) -> list[Container]:
        """Return those whose run is shown to have crashed and was not when they were last listed."""
        return [c for c in containers if c.exit is not None and c.exit.cause is ExitCause.CRASHED and self._has_just_ended(c)]

    def explain(self, container: Container, cause: ExitCause, detail: str) -> None:
        """Note why a run has really ended, where the engine knows only how."""
        assert container.exit is not None, "only what has ended can be explained"
        verdict = Exit(cause=cause, code=container.exit.code, detail=detail)
        self._verdicts.setdefault((container.model, container.run), verdict)

    def judged(self) -> list[ModelName]:
        """Return whose run we have given up, and the engine still shows."""
        return [model for model, run in self._verdicts if self._runs(model, run)]

    def run(self, model: ModelName) -> RunId:
        """Return which run of a model the engine shows."""
        container = self._containers.get(model)
        return container.run if container else RunId("")

    def unready(self) -> list[tuple[ModelName, RunId]]:
        """Return the runs that are up and have not answered yet."""
        return [
            (c.model, c.run)
            for c in self._containers.values()
            if c.running
            and self._ready.get(c.model, ("", 0.0))[0] != c.run
            and (c.model, c.run) not in self._verdicts
            and not self._is(c.model, Stop, Remove)
            and not self._is_held(c.model)
        ]

    def ready(self) -> list[tuple[ModelName, RunId]]:
        """Return the runs that have answered and are not being stopped."""
        return [(m, run) for m, (run, _) in self._ready.items() if self._runs(m, run) and not self._is(m, Stop, Remove)]

    def workers(self) -> dict[ModelName, Worker]:
        """Return every worker, as far as anyone can tell."""
        seen = {model: self._worker(container) for model, container in self._containers.items()}
        return {model: worker for model, worker in seen.items() if worker is not None}

    def _blame_memory(self, containers: Sequence[Container], memory_kills: int) -> None:
        """
        Find the runs that the kernel has killed for want of memory, although the engine knows of nobody who killed them.

        The engine hears of the reason on another way than of the death, and once in some dozen times it never does.
        """
        ended = [(c, c.exit.cause) for c in containers if c.exit is not None and self._has_just_ended(c)]
        unexplained = memory_kills - sum(cause is ExitCause.OUT_OF_MEMORY for _, cause in ended)
        by_nobody = [c for c, cause in ended if cause is ExitCause.KILLED and not self._is(c.model, Stop, Remove)]
        for container in by_nobody[: max(0, unexplained)]:
            verdict = Exit(cause=ExitCause.OUT_OF_MEMORY, code=SIGKILLED, detail="the kernel killed for memory in that moment")
            self._verdicts.setdefault((container.model, container.run), verdict)

    def _has_just_ended(self, container: Container) -> bool:
        """Say whether a run has ended since the last listing."""
        before = self._containers.get(container.model)
        return before is not None and not container.running and (before.running or before.run != container.run)

    def _worker(self, container: Container) -> Worker | None:
        model = container.model
        ready = self._ready.get(model)
        verdict = self._verdicts.get((model, container.run))
        status = Status.STARTING if container.running else Status.STOPPED
        since_s = None
        if container.running and ready is not None and ready[0] == container.run:
            status, since_s = Status.READY, ready[1]
        if self._is(model, Start) and not container.running:
            status = Status.STARTING
        if self._is_held(model):
            status = Status.HELD
        if self._is_leaving(container) or (container.running and verdict is not None):
            status, since_s = Status.STOPPING, None
        return Worker(
            model=model,
            status=status,
            memory_bytes=container.memory_bytes,
            spec_hash=container.spec_hash,
            # What is held has not begun: its life is seen to begin when it is let go.
            run=self._before_held.get(model, NEVER_RAN) if status is Status.HELD else container.run,
            # What we have given up has ended as far as its callers are concerned, whatever the engine still shows.
            exit=verdict or (container.exit if status is Status.STOPPED else None),
            ready_since_s=since_s,
            cards=container.cards,
        )

    def _runs(self, model: ModelName, run: RunId) -> bool:
        container = self._containers.get(model)
        return container is not None and container.running and container.run == run

    def _is_held(self, model: ModelName) -> bool:
        container = self._containers.get(model)
        waits = container is not None and container.running and model in self._held
        return self._is(model, Hold) or (waits and not self._is(model, LetGo))

    def _is_leaving(self, container: Container) -> bool:
        """Say whether we are ending it; that the engine shows it ended is not enough while its memory is waited for."""
        acting = self.acting.get(container.model)
        if acting is None or not isinstance(acting.action, Stop | Remove):
            return False
        return container.running or (isinstance(acting.action, Stop) and acting.settled_at is None)

    def _is(self, model: ModelName, *kinds: type[Action]) -> bool:
        acting = self.acting.get(model)
        return acting is not None and isinstance(acting.action, kinds)
