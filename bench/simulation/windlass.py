"""The real scheduler, planner and `diff` on the simulated box: what the pool does with real containers, done with none."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from bench.simulation.machine import BUDGET_BYTES, Machine, load_s
from bench.simulation.workload import Job, Model, Workload
from controller.card_reports import held_by
from controller.reconcile import Action, Remove, Start, Stop, diff
from controller.scheduler import Grant, Notice, Refusal, Revocation, Rules, Scheduler
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec, WorkerSpec
from controller.state import NEVER_RAN, Exit, ExitCause, LeaseId, RunId, Status, Worker

TICK_S: Final = 0.25
"""The pool looks again so often while somebody waits; otherwise nothing changes without an event."""
RECENT_SHARE: Final = 0.3
"""What the newest load weighs in the ledger's average."""
RULES: Final = Rules(budget_bytes=BUDGET_BYTES, request_limit_s=60.0, adoption_grace_s=0.0, queue_limit=10_000)
ENDED: Final = Exit(cause=ExitCause.KILLED, code=137)


class Windlass:
    """
    Requests on one side, the machine on the other, the real core between them.

    Attributes:
        most_bytes: the most that was held at any moment of each card; of the box's memory, under -1.

    """

    def __init__(self, workload: Workload, rules: Rules = RULES) -> None:
        """
        Begin with empty memory; how long a load takes is an estimate until there was one.

        Where the rules tell of cards, all models lie on those and nothing of them in the box's memory.
        """
        self.machine = Machine()
        self.most_bytes: Counter[int] = Counter()
        self.bounds_s: dict[int, float] = {}
        self.etas_s: dict[int, float] = {}
        self.failed = 0
        self._models = {m.name: m for m in workload.models}
        self._jobs = {LeaseId(str(j.number)): j for j in workload.jobs}
        self._specs = {m.name: _spec(m, on_card=bool(rules.cards)) for m in workload.models}
        self._containers = {name: _container(spec) for name, spec in self._specs.items()}
        self._workers: dict[ModelName, Worker] = {}
        self._load_s: dict[ModelName, float] = {}
        self._rules = rules
        self._starts = 0
        self.scheduler = Scheduler(rules, self._specs, {}, 0.0)
        for name in self._containers:
            self._show(name, Status.STOPPED, NEVER_RAN)
        for job in workload.jobs:
            self.machine.at(job.at_s, partial(self._arrive, job))

    def run(self) -> Machine:
        """Go on until everybody is served."""
        while True:
            tick_s = self.machine.now + TICK_S if self.scheduler.waiting else float("inf")
            if not self.machine.step(tick_s) and tick_s == float("inf"):
                return self.machine
            self._turn()

    def _arrive(self, job: Job) -> None:
        lease = LeaseId(str(job.number))
        self.etas_s[job.number] = self.scheduler.expected_wait_s(job.model)
        self.scheduler.request(lease, job.model, self.machine.now)

    def _turn(self) -> None:
        for answer in self.scheduler.turn(self._workers, self.machine.now):
            match answer:
                case Grant():
                    job = self._jobs[answer.lease]
                    self.bounds_s[job.number] = answer.bound_s
                    done = partial(self._finish, answer.lease, self.machine.now)
                    cards = self._workers[answer.worker].cards
                    self.machine.serve(job, done, card=cards[0].card if cards else 0)
                case Refusal() | Revocation():
                    self.failed += 1
                case Notice():
                    pass
        self._place()
        for action in diff(self.scheduler.desired, self._workers, self._containers, self._rules.capacity):
            self._perform(action)

    def _place(self) -> None:
        """Describe whoever is to come as lying where the core has decided."""
        for model, cards in self.scheduler.places.items() if self._rules.cards else ():
            if not self._workers[model].holds and self._containers[model].cards != cards:
                self._containers[model] = _container(replace(self._specs[model], cards=cards))

    def _finish(self, lease: LeaseId, granted_s: float) -> None:
        self.scheduler.release(lease, self.machine.now, served_s=self.machine.now - granted_s)

    def _perform(self, action: Action) -> None:
        model = action.model
        match action:
            case Start():
                self._starts += 1
                run = RunId(str(self._starts))
                self._show(model, Status.STARTING, run)
                self.machine.load(self._models[model].memory_bytes, partial(self._ready, model, run, self.machine.now))
            case Stop():
                run = self._workers[model].run
                self._show(model, Status.STOPPING, run)
                self.machine.stop(partial(self._show, model, Status.STOPPED, run))
            case Remove():  # it is to lie on another card
                self._show(model, Status.STOPPED, NEVER_RAN)
            case _:
                raise AssertionError("all containers are made beforehand")

    def _ready(self, model: ModelName, run: RunId, began_s: float) -> None:
        worker = self._workers[model]
        if worker.status is Status.STARTING and worker.run == run:  # else it was stopped while it was loaded
            self._show(model, Status.READY, run)
            self.scheduler.loaded(model, self._usual_s(model, self.machine.now - began_s))

    def _usual_s(self, model: ModelName, took_s: float) -> float:
        """Average as the ledger does."""
        before_s = self._load_s.get(model, took_s)
        self._load_s[model] = (1 - RECENT_SHARE) * before_s + RECENT_SHARE * took_s
        return self._load_s[model]

    def _show(self, model: ModelName, status: Status, run: RunId) -> None:
        spec = self._containers[model]
        self._workers[model] = Worker(
            model=model,
            status=status,
            memory_bytes=spec.memory_bytes,
            spec_hash=spec.spec_hash,
            run=run,
            exit=ENDED if status is Status.STOPPED and run != NEVER_RAN else None,
            cards=spec.cards,
        )
        held = held_by(self._workers)
        for card, held_bytes in ((-1, held.total_bytes), *((card, held.card_bytes(card)) for card, _ in self._rules.cards)):
            self.most_bytes[card] = max(self.most_bytes[card], held_bytes)


def _spec(model: Model, *, on_card: bool) -> ModelSpec:
    size = model.memory_bytes
    here_bytes, there_bytes = (0, size) if on_card else (size, 0)
    return ModelSpec(
        name=model.name,
        engine="simulated",
        folder=PurePosixPath("/models", model.name),
        weights=PurePosixPath("weights"),
        weights_bytes=size,
        digest=model.name,
        context_tokens=4096,
        parallel=1,
        footprint=Footprint(
            total_bytes=here_bytes,
            weights_bytes=here_bytes,
            private_bytes=0,
            source=FootprintSource.ESTIMATE,
            gpu_bytes=there_bytes,
        ),
        load_s=load_s(size),
        api_paths=frozenset({ApiPath.CHAT}),
    )


def _container(spec: ModelSpec) -> WorkerSpec:
    return WorkerSpec(
        model=spec.name,
        image="simulated",
        argv=(),
        mounts=(),
        memory_bytes=spec.footprint.total_bytes,
        socket=PurePosixPath("/run", spec.name),
        cards=spec.cards,
    )
