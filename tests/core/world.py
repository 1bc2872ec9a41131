"""
The whole loop without containers: callers, scheduler, diff, and an engine that lies, lags, crashes and forgets.

The world performs what the core asks for, breaks what it is told to break, and checks after every turn what must always hold.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from controller.cards import whereabouts
from controller.charges import UNSHARED, Capacity, Cards, WeightsId
from controller.errors import RefusedError
from controller.pace import Pace
from controller.reconcile import MAX_CONTAINERS, Action, Create, Hold, LetGo, Remove, Start, Stop, diff
from controller.replicas import expand, model_of
from controller.scheduler import Answer, Grant, Notice, Refusal, Revocation, Rules, Scheduler
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec, Spread, Tier, WorkerSpec
from controller.state import NEVER_RAN, Exit, ExitCause, LeaseId, RunId, Status, Worker

KILLED = Exit(cause=ExitCause.KILLED, code=137)
CRASHED = Exit(cause=ExitCause.CRASHED, code=1, detail="boom")
OUT_OF_MEMORY = Exit(cause=ExitCause.OUT_OF_MEMORY, code=137)


def model_spec(
    name: str,
    *,
    size: int = 1,
    parallel: int = 1,
    load_s: float = 1.0,
    pinned: bool = False,
    tier: Tier = Tier.MEDIUM,
    priority: int = 0,
    version: int = 0,
    replicas: int = 1,
    private: int = 0,
    gpu: int = 0,
    spread: Spread = Spread(),  # noqa: B008  # a value
) -> ModelSpec:
    """Make a model; the sizes of tests are whole bytes."""
    return ModelSpec(
        name=ModelName(name),
        engine="fake",
        folder=PurePosixPath(f"/models/{name}"),
        weights=PurePosixPath("weights"),
        weights_bytes=size,
        # Where several workers map the weights, other bytes are other weights; a footprint alone may be corrected.
        digest=f"{name}-{version}" if replicas == 1 else f"{name}.{size - private}-{version}",
        context_tokens=1024,
        parallel=parallel,
        footprint=Footprint(
            total_bytes=size,
            weights_bytes=size - private,
            private_bytes=private,
            source=FootprintSource.ESTIMATE,
            gpu_bytes=gpu,
            spread=spread,
        ),
        load_s=load_s,
        api_paths=frozenset({ApiPath.CHAT}),
        tier=tier,
        pinned=pinned,
        priority=priority,
        replicas=replicas,
    )


def worker_spec(model: ModelSpec) -> WorkerSpec:
    """Describe a model's container; a new digest is a new container, a new footprint a new limit."""
    return WorkerSpec(
        model=model.name,
        image="fake",
        argv=(model.digest,),
        mounts=(),
        memory_bytes=model.footprint.total_bytes,
        socket=PurePosixPath(f"/run/{model.name}/worker.sock"),
        weights=model.charge.weights,
        weights_bytes=model.charge.weights_bytes,
        cards=model.cards,
        devices=tuple(f"gpu={index}" for index in model.gpus),
    )


def worker(
    name: str, status: Status = Status.READY, *, size: int = 1, run: str = "r1", exited: Exit | None = None, cards: Cards = ()
) -> Worker:
    """Make a worker as a scheduler sees it."""
    spec = worker_spec(replace(model_spec(name, size=size), cards=cards))
    return Worker(
        model=spec.model,
        status=status,
        memory_bytes=size,
        spec_hash=spec.spec_hash,
        run=RunId(run),
        exit=exited,
        cards=cards,
    )


@dataclass(slots=True, kw_only=True)
class Container:
    """What the engine really holds."""

    memory_bytes: int
    spec_hash: str
    weights: WeightsId = UNSHARED
    weights_bytes: int = 0
    cards: Cards = ()
    status: Status = Status.STOPPED
    run: RunId = NEVER_RAN
    exit: Exit | None = None
    told_to_start: bool = False
    """A start is under way and has not taken effect."""
    waits: bool = False
    """It is held, whatever else is done to it."""
    before_held: RunId = NEVER_RAN
    """The run before the one that is held."""

    @property
    def held_bytes(self) -> int:
        """What it really takes of the box's memory."""
        return self.memory_bytes if self.holds else 0

    @property
    def holds(self) -> bool:
        """It really takes something."""
        return self.told_to_start or (self.status is not Status.STOPPED and not self.waits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease a caller holds."""

    model: ModelName
    worker: ModelName
    run: RunId
    since_s: float


class World:
    """Callers on one side, containers on the other, the core between them."""

    def __init__(self, rules: Rules, specs: Iterable[ModelSpec]) -> None:
        """Start with no container and nobody asking."""
        self.rules = rules
        self.models: dict[ModelName, ModelSpec] = {s.name: s for s in specs}
        self.specs: Mapping[ModelName, ModelSpec] = expand(self.models)
        self.now = 1000.0
        self.engine: dict[ModelName, Container] = {}
        self.seen: dict[ModelName, Worker] = {}
        self.waiting: dict[LeaseId, ModelName] = {}
        self.load_only: set[LeaseId] = set()
        self.held: dict[LeaseId, Held] = {}
        self.orphans: dict[LeaseId, Held] = {}
        """Leases from before a restart which their gateway has not renewed yet."""
        self.grants: list[Grant] = []
        self.refusals: list[Refusal] = []
        self.revocations: list[Revocation] = []
        self.notices: dict[LeaseId, Notice] = {}
        self.starts: list[ModelName] = []
        self.holds: list[ModelName] = []
        self.held_once: set[ModelName] = set()
        self.renew_until_s = self.now
        """Gateways renew what they hold before this."""
        self._last_lease = 0
        self._last_run = 0
        self.scheduler = Scheduler(rules, self.specs, {}, self.now)

    # Callers.

    def ask(
        self, model: str, *, batch: bool = False, load_only: bool = False, deadline_s: float | None = None
    ) -> LeaseId | RefusedError:
        """Ask as a caller does; the refusal is returned, since a caller goes on living with it."""
        self._last_lease += 1
        lease = LeaseId(f"lease-{self._last_lease}")
        try:
            self.scheduler.request(lease, ModelName(model), self.now, batch=batch, load_only=load_only, deadline_s=deadline_s)
        except RefusedError as refused:
            return refused
        self.waiting[lease] = ModelName(model)
        if load_only:
            self.load_only.add(lease)
        return lease

    def must_ask(self, model: str, *, batch: bool = False, load_only: bool = False, deadline_s: float | None = None) -> LeaseId:
        """Ask and count on being heard."""
        lease = self.ask(model, batch=batch, load_only=load_only, deadline_s=deadline_s)
        assert not isinstance(lease, RefusedError), lease
        return lease

    def serve(self, model: str) -> list[Answer]:
        """Serve who can be served without a turn, as is done for whoever asks."""
        answers = self.scheduler.serve(ModelName(model), self.now)
        self._take(answers)
        return answers

    def leave(self, lease: LeaseId, *, served: bool = False) -> None:
        """Hang up, or finish."""
        held = self.held.pop(lease, None)
        self.waiting.pop(lease, None)
        served_s = self.now - held.since_s if held is not None and served else None
        self.scheduler.release(lease, self.now, served_s=served_s)

    # The controller.

    def look(self) -> None:
        """Take a fresh listing; what is being started or stopped shows as that."""
        self.seen = {
            model: Worker(
                model=model,
                status=Status.STARTING if c.told_to_start else c.status,
                memory_bytes=c.memory_bytes,
                spec_hash=c.spec_hash,
                run=c.before_held if c.status is Status.HELD else c.run,
                exit=c.exit if c.status is Status.STOPPED else None,
                cards=c.cards,
            )
            for model, c in self.engine.items()
        }

    def turn(self, *, lose: int = 0, blind: bool = False) -> list[Answer]:
        """Let the core decide and do what it says; *lose* engine calls fail before their effect, *blind* sees an old listing."""
        if not blind:
            self.look()
        before = frozenset(self.scheduler.desired)
        answers = self.scheduler.turn(self.seen, self.now)
        self._take(answers)
        if self.scheduler.desired - before:
            assert self.scheduler.committed.fits(self.rules.capacity), "desired does not fit"
        assert set(self.scheduler.leases) == set(self.held), "the core and the callers disagree about who holds a lease"
        assert {h.worker for h in self.held.values()} <= self.scheduler.desired, "somebody uses what is not wanted"
        arriving = self.scheduler.arriving
        self.held_once &= {*arriving, *self.scheduler.desired}
        actions = diff(
            self.scheduler.desired,
            self.seen,
            self.worker_specs(),
            self.rules.capacity,
            arriving=arriving,
            may_hold=lambda model: model not in self.held_once,
        )
        for action in actions:
            if lose > 0:
                lose -= 1
                continue
            self._perform(action)
        return answers

    def worker_specs(self) -> Mapping[ModelName, WorkerSpec]:
        """Describe the containers of all registered models."""
        capacity, places = self.rules.capacity, self.scheduler.places
        lies = {
            name: whereabouts(capacity, spec.footprint, worker=self.seen.get(name), place=places.get(name))
            for name, spec in self.specs.items()
        }
        return {name: worker_spec(replace(spec, cards=lies[name])) for name, spec in self.specs.items()}

    def restart(self) -> None:
        """Kill the controller and start it again: callers in the queue are lost, leases wait for their gateway."""
        self.held_once = set()
        for container in self.engine.values():
            container.told_to_start = False
            container.before_held = NEVER_RAN  # nor what ran before
            if container.status is Status.STOPPING:
                container.status = (
                    Status.HELD if container.waits else Status.READY
                )  # a new controller cannot know that it was told to stop
        self.orphans |= self.held
        self.held, self.waiting, self.load_only = {}, {}, set()
        self.look()
        self.renew_until_s = self.now + self.rules.adoption_grace_s
        self.scheduler = Scheduler(self.rules, self.specs, self.seen, self.now)

    def renew(self, lease: LeaseId) -> bool:
        """Claim a lease from before the restart."""
        held = self.orphans.pop(lease)
        if not self.scheduler.renew(lease, held.model, held.run, self.now):
            return False
        self.held[lease] = replace(held, since_s=self.now)
        return True

    def register(self, specs: Iterable[ModelSpec]) -> None:
        """Change the catalog."""
        self.models = {s.name: s for s in specs}
        self.specs = expand(self.models)
        self.scheduler.register(self.specs)
        described = self.worker_specs()
        self.scheduler.outdate(m for m, w in self.seen.items() if m in described and described[m].spec_hash != w.spec_hash)

    def set_pace(self, factor: float) -> None:
        """Let the box be as fast as this."""
        self.scheduler.set_pace(Pace(factor=factor))

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget of the box's memory."""
        self.set_capacity(replace(self.rules.capacity, ram_bytes=budget_bytes))

    def set_capacity(self, capacity: Capacity) -> None:
        """Change the budgets."""
        self.rules = replace(self.rules, budget_bytes=capacity.ram_bytes, cards=capacity.cards)
        self.scheduler.set_budget(capacity)

    def unload(self, model: str, *, force: bool) -> bool:
        """Unload by hand; false if that was refused."""
        try:
            answers = self.scheduler.unload(ModelName(model), force=force)
        except RefusedError:
            return False
        self._take(answers)
        if force:  # a gateway that has not renewed yet will find its worker gone
            self.orphans = {lease: held for lease, held in self.orphans.items() if held.model != model}
        return True

    def sacrifice(self, model: str) -> list[Answer]:
        """Let the box run out of memory: a wanted worker is ended, whoever uses it."""
        answers = self.scheduler.sacrifice(ModelName(model))
        self._take(answers)
        self.orphans = {lease: held for lease, held in self.orphans.items() if held.model != model}
        return answers

    def fail_start(self, model: ModelName) -> None:
        """Let the engine refuse to start a container."""
        self.engine[model].told_to_start = False
        self._take(self.scheduler.fail(model, "no such device", self.now))

    # The engine.

    @property
    def held_bytes(self) -> int:
        """Memory that is really taken."""
        running = [c for c in self.engine.values() if c.holds]
        private_bytes = sum(c.memory_bytes - c.weights_bytes for c in running)
        return private_bytes + sum({c.weights: c.weights_bytes for c in running}.values())

    def held_on(self, card: int) -> int:
        """Memory of a card that is really taken."""
        parts = (part for c in self.engine.values() if c.holds for part in c.cards)
        return sum(part.size_bytes for part in parts if part.card == card)

    @property
    def is_overdrawn(self) -> bool:
        """More is taken than may be, of the box's memory or of a card."""
        capacity = self.rules.capacity
        cards = {part.card for c in self.engine.values() if c.holds for part in c.cards}
        return self.held_bytes > capacity.ram_bytes or any(self.held_on(card) > capacity.card_bytes(card) for card in cards)

    def take_effect(self, model: ModelName) -> None:
        """A start that is under way starts the process."""
        container = self.engine[model]
        self._last_run += 1
        container.told_to_start = False
        container.status, container.run, container.exit = Status.STARTING, RunId(f"run-{self._last_run}"), None

    def become_ready(self, model: ModelName) -> None:
        """A process that runs begins to answer."""
        if self.engine[model].told_to_start:
            self.take_effect(model)
        self.engine[model].status = Status.READY

    def end(self, model: ModelName, how: Exit = CRASHED) -> None:
        """A process ends, by itself or because it was told to."""
        container = self.engine[model]
        container.status, container.exit, container.told_to_start, container.waits = Status.STOPPED, how, False, False

    def vanish(self, model: ModelName) -> None:
        """Somebody removes the container by hand."""
        del self.engine[model]

    def with_status(self, *statuses: Status) -> list[ModelName]:
        """Return the containers in one of these states; one told to start counts as starting."""
        return sorted(m for m, c in self.engine.items() if (Status.STARTING if c.told_to_start else c.status) in statuses)

    def settle(self) -> None:
        """Let everything that is under way end well."""
        for model in self.with_status(Status.STARTING):
            self.become_ready(model)
        for model in self.with_status(Status.STOPPING):
            self.end(model, KILLED)

    # What was said and done.

    def _take(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            match answer:
                case Grant():
                    self._take_grant(answer)
                case Refusal():
                    assert self.waiting.pop(answer.lease, None) is not None, "refused whom nobody knows"
                    self.refusals.append(answer)
                case Revocation():
                    assert self.held.pop(answer.lease, None) is not None, "revoked what nobody holds"
                    self.revocations.append(answer)
                case Notice():
                    assert answer.lease in self.waiting, "noticed whom nobody knows"
                    assert answer.position >= 1
                    assert answer.eta_s >= 0
                    assert answer.bound_s >= 0
                    self.notices[answer.lease] = answer
        for name in {h.worker for h in self.held.values()} & {a.worker for a in answers if isinstance(a, Grant)}:
            holders = sum(1 for h in self.held.values() if h.worker == name)
            assert holders <= self.specs[name].parallel, "more callers than the worker serves at once"

    def _take_grant(self, grant: Grant) -> None:
        assert self.waiting.pop(grant.lease, None) == grant.model, "granted to whom nobody knows, or another model"
        assert model_of(grant.worker) == grant.model, "granted on a worker of another model"
        shown = self.seen[grant.worker]
        assert shown.status is Status.READY, "granted on a worker that is not ready"
        assert shown.run == grant.run, "granted on a run that is not there"
        assert grant.waited_s >= 0
        self.grants.append(grant)
        if grant.lease in self.load_only:
            self.load_only.discard(grant.lease)
            return
        self.held[grant.lease] = Held(model=grant.model, worker=grant.worker, run=grant.run, since_s=self.now)

    def _perform(self, action: Action) -> None:
        model, shown = action.model, self.seen.get(action.model)
        container = self.engine.get(model)
        match action:
            case Create():
                spec = self.worker_specs()[model]
                container = Container(
                    memory_bytes=spec.memory_bytes,
                    spec_hash=spec.spec_hash,
                    weights=spec.weights or WeightsId(f"of {model} alone"),
                    weights_bytes=spec.weights_bytes,
                    cards=spec.cards,
                )
                self.engine.setdefault(model, container)
                assert len(self.engine) <= MAX_CONTAINERS
            case Start():
                self._start(model, container)
            case Hold():
                self._hold(model, container)
            case LetGo():
                self._let_go(model, container)
            case Stop():
                assert shown is not None
                self._stop(shown, container)
            case Remove():
                assert shown is not None
                assert shown.status is Status.STOPPED, "removed while it runs"
                self.engine.pop(model, None)
        if isinstance(action, Start | Hold | LetGo | Stop) and shown is not None and container is not None:
            # An action under way shows, even in an old listing.
            status = Status.STARTING if container.told_to_start else container.status
            run = container.before_held if status is Status.HELD else container.run
            self.seen[model] = replace(shown, status=status, run=run, exit=container.exit if status is Status.STOPPED else None)

    def _start(self, model: ModelName, container: Container | None) -> None:
        self.starts.append(model)
        if container is not None and container.status is Status.STOPPED:
            container.told_to_start = True
            assert not self.is_overdrawn, "more memory than the budgets"

    def _hold(self, model: ModelName, container: Container | None) -> None:
        self.holds.append(model)
        self.held_once.add(model)
        if container is not None and container.status is Status.STOPPED:
            self._last_run += 1
            container.before_held, container.run = container.run, RunId(f"run-{self._last_run}")
            container.status, container.exit, container.waits = Status.HELD, None, True

    def _let_go(self, model: ModelName, container: Container | None) -> None:
        self.starts.append(model)
        if container is not None and container.status is Status.HELD:
            container.status, container.waits = Status.STARTING, False
            assert not self.is_overdrawn, "more memory than the budgets"

    def _stop(self, shown: Worker, container: Container | None) -> None:
        leases = (*self.held.values(), *self.orphans.values())
        assert not any((h.worker, h.run) == (shown.model, shown.run) for h in leases), "stopped in use"
        if container is not None and container.status is not Status.STOPPED:
            container.status = Status.STOPPING
        elif container is not None:
            container.told_to_start = False
