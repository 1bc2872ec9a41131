"""The whole loop on a virtual clock: loads, requests and stops take their time, clients ask again as soon as they are served."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from controller.errors import RefusedError
from controller.replicas import model_of
from controller.scheduler import Grant
from controller.spec import ModelName
from controller.state import LeaseId, Status
from tests.core.world import KILLED, World

STOP_S = 1.0
TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Somebody who asks for these models in turn, for ever, each time for so long, and thinks in between."""

    models: Sequence[str]
    service_s: float = 1.0
    think_s: float = 0.0
    begins_s: float = 0.0
    batch: bool = False


class Clockwork:
    """Runs a world until a time."""

    def __init__(
        self,
        world: World,
        clients: Sequence[Client],
        *,
        load_s: dict[str, float],
        paces: Sequence[tuple[float, float]] = (),
    ) -> None:
        """
        Let every client begin in its own time.

        *load_s* is from told to start until ready; *paces* are times and how fast the box is from then on.
        """
        self.world = world
        self.load_s = load_s
        self._serial = itertools.count()
        self._began_s = world.now
        self._events: list[tuple[float, int, str, object]] = []
        self._coming: set[tuple[ModelName, Status]] = set()
        self._asked: dict[LeaseId, tuple[Client, int]] = {}
        self._heard = 0
        for client in clients:
            self._at(client.begins_s, "ask", (client, 0))
        for begins_s, factor in paces:
            self._at(begins_s, "pace", factor)

    @property
    def elapsed_s(self) -> float:
        """How long it has been running."""
        return self.world.now - self._began_s

    def run(self, until_s: float) -> list[Grant]:
        """Go on until so long after the beginning, and return all grants so far."""
        while self.elapsed_s < until_s:
            due_s = self._events[0][0] if self._events else until_s
            self.world.now = self._began_s + min(due_s, self.elapsed_s + TICK_S, until_s)
            while self._events and self._events[0][0] <= self.elapsed_s + 1e-9:
                self._happen(*heapq.heappop(self._events)[2:])
            self.world.turn()
            self._follow()
        return self.world.grants

    def _at(self, when_s: float, what: str, whom: object) -> None:
        heapq.heappush(self._events, (when_s, next(self._serial), what, whom))

    def _happen(self, what: str, whom: object) -> None:
        match what, whom:
            case "ask", (Client() as client, int(turn)):
                lease = self.world.ask(client.models[turn % len(client.models)], batch=client.batch)
                if isinstance(lease, RefusedError):
                    self._at(self.elapsed_s + 1.0, "ask", (client, turn))
                else:
                    self._asked[lease] = (client, turn)
            case "finish", str(lease):
                client, turn = self._asked.pop(LeaseId(lease))
                if lease in self.world.held:
                    self.world.leave(LeaseId(lease), served=True)
                self._at(self.elapsed_s + client.think_s, "ask", (client, turn + 1))
            case "pace", float(factor):
                self.world.set_pace(factor)
            case "ready", str(model):
                self._coming.discard((ModelName(model), Status.STARTING))
                if model in self.world.with_status(Status.STARTING):
                    self.world.become_ready(ModelName(model))
            case "stopped", str(model):
                self._coming.discard((ModelName(model), Status.STOPPING))
                if model in self.world.with_status(Status.STOPPING):
                    self.world.end(ModelName(model), KILLED)

    def _follow(self) -> None:
        """See what has begun in this turn, and when it will end."""
        for status, what in ((Status.STARTING, "ready"), (Status.STOPPING, "stopped")):
            for model in self.world.with_status(status):
                if (model, status) not in self._coming:
                    self._coming.add((model, status))
                    self._at(self.elapsed_s + (self.load_s[model_of(model)] if what == "ready" else STOP_S), what, model)
        for grant in self.world.grants[self._heard :]:
            self._at(self.elapsed_s + self._asked[grant.lease][0].service_s, "finish", grant.lease)
        self._heard = len(self.world.grants)
