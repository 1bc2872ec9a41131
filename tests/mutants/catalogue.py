"""The faults: a piece of text in a module of the core, and what it is replaced by."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault. `before` stands exactly once in the module."""

    name: str
    module: str
    before: str
    after: str

    @property
    def path(self) -> Path:
        """The module's file, relative to the repository."""
        return Path("controller", f"{self.module}.py")

    def source(self) -> str:
        """
        Return the module with the fault in it.

        Raises:
            ValueError: the text is not there, or not once: the module has changed, and this fault must be written anew.

        """
        text = (ROOT / self.path).read_text(encoding="utf-8")
        if (count := text.count(self.before)) != 1:
            raise ValueError(
                f"mutant {self.name!r}: wanted its text once in {self.path}, found it {count} times; adapt the mutant"
            )
        return text.replace(self.before, self.after)


MUTANTS = (
    # planner
    Mutant("pinned workers are evicted", "planner", "if not r.pinned and not r.busy]", "if not r.busy]"),
    Mutant("busy workers are evicted", "planner", "if not r.pinned and not r.busy]", "if not r.pinned]"),
    Mutant(
        "pinned workers are drained", "planner", "_choose([r for r in residents if not r.pinned],", "_choose(list(residents),"
    ),
    Mutant("the wanted one weighs nothing", "planner", "short_bytes(capacity, want)", "short_bytes(capacity)"),
    Mutant("refused when it just fits", "planner", "if short_bytes > 0 or", "if short_bytes >= 0 or"),
    Mutant(
        "nothing is given back",
        "planner",
        "if staying.fits(capacity, resident.charge) and",
        "if False and",
    ),
    Mutant(
        "one too few is freed",
        "planner",
        "if staying.fits(capacity) and excess_places <= 0:",
        "if staying.short_bytes(capacity) <= 1 and excess_places <= 0:",
    ),
    Mutant("places are not counted", "planner", "len(residents) + 1 - places", "0"),
    Mutant("one place too many", "planner", "len(residents) + 1 - places", "len(residents) - places"),
    Mutant("the most valuable goes first", "planner", "resident.busy, resident.value,", "resident.busy, -resident.value,"),
    Mutant("another drain every time", "planner", "return (not resident.draining, ", "return (False, "),
    Mutant(
        "busy ones drain before idle ones",
        "planner",
        "draining, resident.busy, resident",
        "draining, not resident.busy, resident",
    ),
    # reconcile
    Mutant(
        "stopping memory is forgotten",
        "reconcile",
        "for w in workers.values() if w.holds)",
        "for w in workers.values() if w.holds and w.status is not Status.STOPPING)",
    ),
    Mutant("what is started is not added up", "reconcile", "            held.add(charge)\n", ""),
    Mutant("a desired worker is stopped", "reconcile", "return model not in desired and worker", "return worker"),
    Mutant("a loading worker is never stopped", "reconcile", "in (Status.STARTING, Status.READY)", "in (Status.READY,)"),
    Mutant(
        "a running container is outdated too", "reconcile", "if w.status is Status.STOPPED and _is_outdated", "if _is_outdated"
    ),
    Mutant(
        "another limit is no reason", "reconcile", "(spec.spec_hash, spec.memory_bytes,", "(spec.spec_hash, worker.memory_bytes,"
    ),
    Mutant(
        "another description is no reason",
        "reconcile",
        "(spec.spec_hash, spec.memory_bytes,",
        "(worker.spec_hash, spec.memory_bytes,",
    ),
    Mutant(
        "an outdated container is started",
        "reconcile",
        " or _is_outdated(model, worker, specs):\n            continue",
        ":\n            continue",
    ),
    Mutant("what is held is started again", "reconcile", "if worker.status is Status.STOPPED else LetGo(model))", ")"),
    Mutant(
        "what is held is let go without room",
        "reconcile",
        "if held.fits(capacity, charge):",
        "if held.fits(capacity, charge) or worker.status is Status.HELD:",
    ),
    Mutant(
        "what is held for nobody stays",
        "reconcile",
        "return model not in expected or _is_outdated(model, worker, specs)",
        "return False",
    ),
    Mutant(
        "what is held and outdated stays",
        "reconcile",
        "return model not in expected or _is_outdated(model, worker, specs)",
        "return model not in expected",
    ),
    Mutant("who arrives is ended", "reconcile", "expected = {*desired, *arriving}", "expected = {*desired}"),
    Mutant("what must not be held is", "reconcile", "and model not in coming and may_hold(model):", "and model not in coming:"),
    Mutant("what starts is held as well", "reconcile", "and model not in coming and may_hold(model):", "and may_hold(model):"),
    # readahead
    Mutant(
        "what is cached is read",
        "readahead",
        "return max(0, self.weights_bytes - self.cached_bytes)",
        "return self.weights_bytes",
    ),
    Mutant("a cold model is mapped", "readahead", "cached_bytes >= WARM_SHARE * weights_bytes", "cached_bytes >= 0"),
    Mutant("a warm model is read", "readahead", "cached_bytes >= WARM_SHARE * weights_bytes", "cached_bytes > weights_bytes"),
    Mutant("an engine that reads directly is read for", "readahead", "if reads_directly:", "if False:"),
    Mutant(
        "residents' pages are pushed out",
        "readahead",
        "available_bytes - mapped_bytes - FLOOR_BYTES",
        "available_bytes - FLOOR_BYTES",
    ),
    Mutant(
        "nothing is left alone", "readahead", "available_bytes - mapped_bytes - FLOOR_BYTES", "available_bytes - mapped_bytes"
    ),
    Mutant("early reading of what is not to be read", "readahead", "if plan.mode is not LoadMode.READ_AHEAD:", "if False:"),
    Mutant("creations come before removals", "reconcile", "    actions += [Remove(m) for m in spare[:surplus]]\n", ""),
    Mutant("containers without a limit", "reconcile", "missing[: len(missing) - max(0, surplus - len(spare))]", "missing"),
    # forecast
    Mutant("a turn serves twice as many", "forecast", "(line.parallel * per_turn)", "(line.parallel * per_turn * 2)"),
    Mutant("the caller does not count itself", "forecast", "own.waiting + own.busy + 1)", "own.waiting + own.busy)"),
    Mutant("others are never in the way", "forecast", "if patience_s is None and own.free:", "if True:"),
    Mutant("a gated worker is promised", "forecast", "self.resident and not self.gated and", "self.resident and"),
    Mutant("a full worker is promised", "forecast", " and self.busy < self.parallel", ""),
    Mutant("the longest request is forgotten", "forecast", "turns * (quantum_s + request_limit_s + ", "turns * (quantum_s + "),
    # drains
    Mutant("the gate is always open", "drains", "        if drain is None:\n            return True\n", "        return True\n"),
    Mutant("the gate is never open", "drains", "if waiter.sequence < max(drain.gate, record.gate):", "if False:"),
    Mutant("the quantum has no end", "drains", "record.ready_since_s) < rules.quantum_s", "record.ready_since_s) < 1e9"),
    Mutant("the quantum runs during the load", "drains", "now - max(drain.since_s, record.ready_since_s)", "now - drain.since_s"),
    Mutant("the gate forgets who came during the load", "drains", "max(drain.gate, record.gate)", "drain.gate"),
    Mutant("older callers are drained too", "drains", "if head is None or waiter.sequence < head:", "if head is None:"),
    Mutant(
        "the drain outlives its claimant",
        "drains",
        "if head is None or waiter.sequence < head:",
        "if head is not None and waiter.sequence < head:",
    ),
    Mutant("no residency", "drains", "return now - record.ready_since_s < rules.min_residency_s", "return False"),
    Mutant("eternal residency", "drains", "return now - record.ready_since_s < rules.min_residency_s", "return True"),
    Mutant("every turn begins a new quantum", "drains", "if drain is None or drain.claimant != claimant:", "if True:"),
    Mutant("a quantum is inherited", "drains", "if drain is None or drain.claimant != claimant:", "if drain is None:"),
    Mutant("leases do not keep a worker", "drains", "if self._residency.record(model).leases or", "if"),
    Mutant("the grace is ignored", "drains", " or self._residency.grace_s(model) > 0:", ":"),
    Mutant(
        "outdated workers go on serving",
        "drains",
        "        if self._residency.is_outdated(worker):\n            return False\n",
        "",
    ),
    Mutant("older callers do not keep a worker", "drains", " or (place is not None and w.sequence < place)", ""),
    Mutant("loading models are evicted", "drains", "return bool(waiters) and place != FIRST", "return False"),
    Mutant("a shrunk budget waits for a load", "drains", "return bool(waiters) and place != FIRST", "return bool(waiters)"),
    Mutant(
        "pinned claims have no place",
        "drains",
        "claimant is None or (self._residency.is_pinned(claimant) and self._residency.is_missing(claimant))",
        "claimant is None",
    ),
    # residency
    Mutant(
        "who has left may come back at once",
        "residency",
        "return worker is None or not worker.holds",
        "return True",
    ),
    Mutant(
        "the run before counts as a failure",
        "residency",
        "self.workers[model].run if model in self.workers else NEVER_RAN",
        "NEVER_RAN",
    ),
    Mutant("the cache does not age", "residency", "self._age = max(self._age, self.value(model, now))", "pass"),
    Mutant("size does not matter", "residency", "/ (max(1, self.bytes_of(model)) / GIB)", "/ GIB"),
    Mutant("priority does not matter", "residency", "2.0 ** (spec.priority if spec else 0)", "1.0"),
    Mutant("any run can be renewed", "residency", "and worker.run == run and", "and"),
    Mutant("large models stay", "residency", "idle_s > self.rules.idle_unload_s", "False"),
    Mutant("every idle model goes", "residency", "return spec.tier is Tier.LARGE and", "return"),
    Mutant("all small models are looked at", "residency", "wished[:MAX_RESIDENTS]", "wished"),
    Mutant("unloaded models come back", "residency", " and model not in self._renounced", ""),
    Mutant("the catalog's figure for what runs", "residency", "            return labelled.memory_bytes", "            pass"),
    Mutant("any number of residents", "residency", " and len(staying) < MAX_RESIDENTS", ""),
    Mutant("outdated is forgotten at once", "residency", "if not self.is_gone(m)}", "if False}"),
    Mutant("resting models are wished for", "residency", " and not self.record(m).resting)", ")"),
    Mutant(
        "the unloaded dead come back",
        "residency",
        "self._renounced.add(model)\n        self._lost.discard(model)\n",
        "self._renounced.add(model)\n",
    ),
    # records
    Mutant("failures are not counted", "records", "        self.failures += 1\n", ""),
    Mutant("it never rests", "records", "self.resting = self.failures >= max_failures", "self.resting = False"),
    Mutant("it rests one failure late", "records", "self.failures >= max_failures", "self.failures > max_failures"),
    Mutant("the pause does not double", "records", "backoff_s * 2.0**doublings", "backoff_s"),
    Mutant("popularity does not fade", "records", "0.5 ** ((now - self.counted_s) / HALF_LIFE_S)", "1.0"),
    Mutant(
        "hanging up is fading",
        "records",
        "self.frequency, self.counted_s = self.popularity(now) + 1.0, now",
        "self.frequency = self.popularity(now) + 1.0",
    ),
    Mutant("nothing is forgiven", "records", "        self.forgive()\n        self.service_s", "        self.service_s"),
    # callers
    Mutant(
        "everybody counts as before", "callers", "return len(queue) if sequence is None else", "return len(queue) if True else"
    ),
    Mutant("who was told is told again", "callers", "{w.lease: now + PUBLISH_S for", "{w.lease: now for"),
    Mutant(
        "who hangs up goes on waiting",
        "callers",
        "queue.pop(next(place for place, w in enumerate(queue) if w.lease == lease))",
        "queue.pop(0)",
    ),
    # scheduler
    Mutant(
        "one caller too many",
        "scheduler",
        "len(self.record(worker).leases) < min(places",
        "len(self.record(worker).leases) <= min(places",
    ),
    Mutant(
        "a hot box serves as many as a cool one",
        "scheduler",
        "places = max((self._places(model), *self._callers.promised(model)))",
        "places = self._residency.specs[worker].parallel",
    ),
    Mutant(
        "a promise is forgotten when the box gets hot",
        "scheduler",
        "places = max((self._places(model), *self._callers.promised(model)))",
        "places = self._places(model)",
    ),
    Mutant(
        "a promise counts on places that others were not promised",
        "scheduler",
        "parallel=min((self._places(model), *self._callers.promised(model))),",
        "parallel=self._places(model),",
    ),
    Mutant("a request on a hot box counts as a long one", "scheduler", "serve(served_s * self._pace.factor)", "serve(served_s)"),
    Mutant("a hot box is expected to be as quick", "scheduler", "record.service_s / self._pace.factor", "record.service_s"),
    Mutant("a promise outlives who was promised", "callers", "promised[gone.places] -= 1", "promised[gone.places] -= 0"),
    # power
    Mutant(
        "the mode with the highest number is the strongest", "power", "key=lambda mode: mode.rank", "key=lambda mode: mode.number"
    ),
    Mutant("an uncapped mode is the weakest", "power", "gpu_hz: float = math.inf", "gpu_hz: float = 0.0"),
    Mutant(
        "only memory counts", "power", "(lambda mode: mode.memory_hz, lambda mode: mode.gpu_hz)", "(lambda mode: mode.memory_hz,)"
    ),
    # pace
    Mutant("a moment of heat counts", "pace", "now) >= FALL_S:", "now) >= 0:"),
    Mutant("it is well again at once", "pace", "now) >= RISE_S:", "now) >= 0:"),
    Mutant("the worst moment counts", "pace", "max(self._worse.seen)", "min(self._worse.seen)"),
    Mutant("the best moment counts", "pace", "min(self._better.seen)", "max(self._better.seen)"),
    Mutant(
        "heat comes and goes", "pace", "            self._better.end()\n            if self._worse", "            if self._worse"
    ),
    Mutant(
        "cool moments are added up",
        "pace",
        "            self._worse.end()\n            if self._better",
        "            if self._better",
    ),
    Mutant("somebody is served by nobody", "pace", "max(1, int(", "max(0, int("),
    Mutant("an event long ago slows the box down", "pace", "before.counts.get(name, count)", "before.counts.get(name, 0)"),
    Mutant("slow processors slow a GPU down", "pace", "and now is None and not reading.cards:", "and True:"),
    Mutant("one event slows the box down", "pace", "grown > 0 and grown >= NOTABLE_PER_S * elapsed_s", "grown > 0"),
    Mutant("a mode waits like heat", "pace", "if sign.cause is not Cause.MODE]", "]"),
    Mutant(
        "who still loads serves",
        "scheduler",
        "self._residency.workers_of(model) if self._residency.is_ready(worker)]",
        "self._residency.workers_of(model)]",
    ),
    Mutant(
        "a drain hangs on no lease", "scheduler", "(gated or self._callers or self._drains.current)", "(gated or self._callers)"
    ),
    Mutant(
        "nobody waits for a lease",
        "scheduler",
        "(gated or self._callers or self._drains.current)",
        "(gated or self._drains.current)",
    ),
    Mutant(
        "what was removed stays",
        "scheduler",
        " or worker not in self._residency.specs\n        return not",
        "\n        return not",
    ),
    Mutant(
        "what is outdated stays",
        "scheduler",
        "gated = self._residency.is_outdated(worker) or worker not in",
        "gated = worker not in",
    ),
    Mutant("the gate is not asked", "scheduler", " and self._drains.lets_in(waiter, w, now)]", "]"),
    Mutant(
        "batch callers starve", "scheduler", "steps_back and now - waiter.since_s < self.rules.batch_patience_s", "steps_back"
    ),
    Mutant(
        "batch callers step back in a drain",
        "scheduler",
        "waiter.batch and self._residency.principal(waiter.model) not in self._drains",
        "waiter.batch",
    ),
    Mutant(
        "batch callers do not step back",
        "scheduler",
        "waiter.batch and self._residency.principal(waiter.model) not in self._drains",
        "False",
    ),
    Mutant("the reservation is skipped", "admission", "            coming.append(Resident(", "            (Resident("),
    Mutant("what goes is planned with again", "admission", " if r.model not in going]", "]"),
    Mutant(
        "small models slip past large ones",
        "admission",
        "                case Refuse() if coming:\n                    break\n",
        "                case Refuse() if coming:\n                    continue\n",
    ),
    Mutant(
        "refused because somebody else is coming",
        "admission",
        "                case Refuse() if coming:\n                    break\n",
        "",
    ),
    Mutant("an eviction that is not enough", "admission", " if self._residency.fits(choice.charge, without=victims):", ":"),
    Mutant(
        "the youngest claims first",
        "admission",
        "for sequence, m in sorted(heads)",
        "for sequence, m in sorted(heads, reverse=True)",
    ),
    Mutant("pinned models do not claim", "admission", "claims = [*pinned, *(", "claims = [*("),
    Mutant(
        "the pause is ignored",
        "admission",
        "for m, sequence in claims if now >= self._residency.record(m).retry_at_s]",
        "for m, sequence in claims]",
    ),
    Mutant("the run is ignored for failures", "scheduler", " and worker.run != record.run_before:", ":"),
    Mutant(
        "a crash is no failure",
        "scheduler",
        "                answers += self._count_failure(model, worker.exit, now)\n",
        "                pass\n",
    ),
    Mutant(
        "the run is ignored for leases",
        "scheduler",
        "if worker is not None and worker.run == lease.run:",
        "if worker is not None:",
    ),
    Mutant(
        "leases have no limit",
        "scheduler",
        "if worker.status in RUNNING and now - lease.since_s < lease.limit_s:",
        "if worker.status in RUNNING:",
    ),
    Mutant("what is removed goes at once", "scheduler", "if self.record(model).leases or", "if"),
    Mutant("the grace is no reason to keep", "scheduler", " or self._residency.grace_s(model) > 0:", ":"),
    Mutant("the grace is no reason to refuse", "scheduler", "if not force and (grace_s := ", "if False and (grace_s := "),
    Mutant("the grace is for everybody", "residency", " if model in self._adopted else 0.0", ""),
    Mutant("wishes come before callers", "admission", "        if self._callers:\n            return\n", ""),
    Mutant("a shrunk budget evicts nobody", "admission", "if committed.fits(capacity):", "if True:"),
    Mutant("pinned models go like all others", "admission", "if isinstance(answer, Refuse):  #", "if True:  #"),
    Mutant("deadlines are forgotten", "scheduler", "for waiter in self._callers.overdue(now):", "for waiter in ():"),
    Mutant("a forced unload leaves the leases", "scheduler", "        held.clear()\n", ""),
    Mutant(
        "whoever only loads holds a lease",
        "scheduler",
        "            if not waiter.load_only:\n",
        "            if True:\n",
    ),
    Mutant("the dead stay dead", "scheduler", "            self._residency.lose(model)\n", "            pass\n"),
    Mutant(
        "all that failed is wished for",
        "scheduler",
        "if worker in self.desired and worker == model:",
        "if worker == model:",
    ),
    # admission, on cards
    Mutant(
        "who lies on another card leaves for a card that shrank", "admission", " and committed.lacks(capacity, r.charge)]", "]"
    ),
    Mutant("nobody helps a card that shrank", "charges", "return any(self.card_bytes(part.card) > ", "return any(0 > "),
    Mutant(
        "nobody helps memory that shrank",
        "charges",
        "if charge.total_bytes and self.total_bytes > capacity.ram_bytes:",
        "if False:",
    ),
    # cards
    Mutant("what lies on a card is free", "charges", "self._cards.get(card, 0) + size_bytes\n", "0\n"),
    Mutant("a card is never short", "charges", "held_bytes - capacity.card_bytes(card))", "0)"),
    Mutant("who leaves a card leaves it full", "charges", "            self._cards[card] -= size_bytes\n", "            pass\n"),
    Mutant("the newcomer takes nothing of a card", "charges", " + extra.get(card, 0)", ""),
    Mutant("a card that is gone has room", "charges", "if index == card), 0)", "if index == card), 1 << 60)"),
    Mutant("pinned ones leave room on a card", "charges", "size_bytes - self._cards.get(card, 0)) for", "size_bytes) for"),
    Mutant("what fits whole is split", "cards", "    if whole:\n        return whole\n", ""),
    Mutant("a card a little too small will do", "cards", "if footprint.gpu_bytes <= room.size_bytes]", "if True]"),
    Mutant("who never leaves is not there", "cards", "size_bytes - held.card_bytes(card)) for", "size_bytes) for"),
    Mutant("every card takes its part of an uneven split", "cards", "    if footprint.spread.even:\n", "    if True:\n"),
    Mutant("no split is even", "cards", "    if footprint.spread.even:\n", "    if False:\n"),
    Mutant("a split costs nothing", "cards", "OnCard(room.card, each_bytes + share)", "OnCard(room.card, share)"),
    Mutant(
        "a split beyond what the cards have", "cards", "if min(rooms) <= 0 or total_bytes < parted_bytes:", "if min(rooms) <= 0:"
    ),
    Mutant("cards alone decide", "cards", "return footprint.total_bytes <= capacity.ram_bytes and (", "return ("),
    Mutant("cards do not matter", "cards", "(not footprint.gpu_bytes or bool(ways(capacity, footprint)))", "True"),
    Mutant("what runs is moved", "cards", "    if worker is not None and worker.holds:\n", "    if False:\n"),
    Mutant("a decision is not carried out", "cards", "    if place is not None:\n", "    if False:\n"),
    Mutant("a container is moved for nothing", "cards", "if tuple(part.card for part in cards) == there)", "if False)"),
    Mutant("any card will do", "placement", "return min(choices, key=", "return max(choices, key="),
    Mutant("a drain begins anew on another card", "placement", " and not r.draining]", "]"),
    Mutant(
        "a busy worker leaves before an idle one",
        "placement",
        "leaving, rank = frozenset(victims), 2",
        "leaving, rank = frozenset(victims), 0",
    ),
    Mutant("what they are worth does not count", "placement", "        sum(r.value for r in fresh),\n", "        0.0,\n"),
    Mutant(
        "two workers of a model on one card",
        "placement",
        "        sum(model_of(r.model) == model_of(wanted.model) for r in near),\n",
        "        0,\n",
    ),
    Mutant("one card for all", "placement", "        len(near),\n", "        0,\n"),
    Mutant(
        "a container is made anew for nothing",
        "placement",
        "        tuple(part.card for part in charge.cards) != wanted.home,\n",
        "        False,\n",
    ),
    Mutant("what is still held is free", "placement", "for r in (*residents, *going))", "for r in residents)"),
    Mutant(
        "who reserved a card is not there",
        "placement",
        "    everybody = [*residents, *coming]\n",
        "    everybody = [*residents]\n",
    ),
    Mutant("another place is no reason", "reconcile", "spec.memory_bytes, spec.cards)", "spec.memory_bytes, worker.cards)"),
    Mutant("the place is forgotten", "residency", "        self.places[model] = cards\n", "        self.places[model] = ()\n"),
    Mutant("the place is never given up", "residency", "        self.places.pop(model, None)\n", ""),
    Mutant(
        "an adopted worker has no place", "residency", "        self.places |= {m: workers[m].cards for m in self._adopted}\n", ""
    ),
    Mutant("what runs lies where it was to", "residency", "            return labelled.cards\n", "            pass\n"),
    Mutant(
        "who is waited for has no place yet",
        "scheduler",
        "return {**self._admission.coming, **self._residency.places}",
        "return self._residency.places",
    ),
    # charges and replicas
    Mutant("shared weights count twice", "charges", "(charge.weights_bytes if self._mapping.get(charge.weights) else 0)", "0"),
    Mutant(
        "the last to leave leaves its weights",
        "charges",
        "            self._mapping[charge.weights] -= 1\n",
        "            pass\n",
    ),
    Mutant(
        "strangers share",
        "charges",
        "        if charge.weights != UNSHARED:\n            self._mapping[charge.weights] = ",
        "        if True:\n            self._mapping[charge.weights] = ",
    ),
    Mutant("replicas are pinned", "replicas", ", pinned=False, tier", ", tier"),
    Mutant("one replica too few", "replicas", "range(1, count + 1)", "range(1, max(2, count))"),
    Mutant("replicas have tiers", "replicas", ", tier=Tier.LARGE)", ")"),
    Mutant(
        "a replica comes before a model that has to", "admission", "if self._drains.current or self._claims(now):", "if False:"
    ),
    Mutant(
        "replicas come all at once",
        "admission",
        "if not inside or not all(map(self._residency.is_ready, inside)):",
        "if not inside:",
    ),
    Mutant("replicas come without memory", "admission", "if choice.plan != Start():", "if False:"),
    Mutant("the first worker gets all", "scheduler", "min(free, key=lambda w: len(self.record(w).leases))", "free[0]"),
    Mutant("waiting callers keep all replicas", "drains", " if self._residency.is_principal(model) else ()", ""),
    Mutant(
        "a replica that must go serves on",
        "drains",
        "        if worker != self._residency.principal(waiter.model):\n            return False\n",
        "",
    ),
    Mutant(
        "a dead replica is mourned", "scheduler", "if worker in self.desired and worker == model:", "if worker in self.desired:"
    ),
    Mutant(
        "one dead worker is a dead model",
        "scheduler",
        " or self._residency.workers_of(model) or self._changes_engine(model):\n            return []",
        " or self._changes_engine(model):\n            return []",
    ),
    Mutant(
        "strangers start as replicas",
        "reconcile",
        "if spec is None or spec.spec_hash != worker.spec_hash:\n        return Charge",
        "if spec is None:\n        return Charge",
    ),
    Mutant(
        "the bound counts on all replicas",
        "forecast",
        "callers / (line.parallel * per_turn)",
        "callers / (line.parallel * line.replicas * per_turn)",
    ),
    Mutant("what was waited before is forgotten", "scheduler", "since_s=now - waited_s", "since_s=now"),
    Mutant("the queue has no limit", "scheduler", "if self.waiting >= self.rules.queue_limit:", "if False:"),
    # guard
    Mutant(
        "what our workers hold is nobody's",
        "guard",
        "sample.available_bytes + sample.private_bytes - self",
        "sample.available_bytes - self",
    ),
    Mutant("the floor is given away", "guard", "sample.private_bytes - self.floor_bytes", "sample.private_bytes"),
    Mutant("the budget comes back at once", "guard", "while at_s - self._lows[0][0] >= CALM_S:", "while len(self._lows) > 1:"),
    Mutant("the budget never comes back", "guard", "while at_s - self._lows[0][0] >= CALM_S:", "while False:"),
    Mutant("the last figure counts, not the lowest", "guard", "max(0, self._lows[0][1])", "max(0, self._lows[-1][1])"),
    Mutant("the budget may be negative", "guard", "max(0, self._lows[0][1])", "self._lows[0][1]"),
    Mutant("every page moves the budget", "guard", "return lowest_bytes // STEP_BYTES * STEP_BYTES", "return lowest_bytes"),
    Mutant("everyday is an alarm", "guard", "self.budget_bytes * (1 - NOTABLE_SHARE)", "self.budget_bytes"),
    Mutant(
        "the floor itself is critical",
        "guard",
        "if sample.available_bytes < self.floor_bytes:",
        "if sample.available_bytes <= self.floor_bytes:",
    ),
    Mutant("busy workers go while idle ones are left", "guard", "or leaving or idle_are_left or", "or leaving or"),
    Mutant("busy workers go while memory is on its way", "guard", "or leaving or idle_are_left or", "or idle_are_left or"),
    Mutant("pinned idle ones keep busy ones alive", "guard", "any(not r.busy and not r.pinned for r", "any(not r.busy for r"),
    Mutant("all busy workers go at once", "guard", " or now - self._ended_s < PAUSE_S:", ":"),
    Mutant("pinned workers are ended first", "guard", "(r.pinned, r.value, r.model), default", "(r.value, r.model), default"),
    Mutant(
        "the most valuable is ended", "guard", "(r.pinned, r.value, r.model), default", "(r.pinned, -r.value, r.model), default"
    ),
    Mutant("busy workers are ended above the floor", "guard", "if self.verdict.level is not Level.CRITICAL or", "if"),
    Mutant("our own loads alarm us", "guard", "or is_ours or", "or"),
    Mutant("stalls with memory to spare alarm us", "guard", "or free_bytes >= NEAR_FLOORS * self.floor_bytes or", "or"),
    Mutant("one stall is enough", "guard", "if sample.at_s - self._strained_since_s < STRAIN_S:", "if False:"),
    Mutant(
        "a strain is never over",
        "guard",
        "            self._strained_since_s = None\n            return False",
        "            return False",
    ),
    Mutant("stalls take what nobody holds", "guard", " or not sample.committed_bytes:", ":"),
    Mutant("weights read again mean nothing", "guard", " or sample.refault_bytes_per_s >= REFAULT_BYTES_PER_S", ""),
    # drift
    Mutant("all private memory is too much", "drift", "reading.private_bytes <= reading.allowed_bytes", "False"),
    Mutant(
        "the last byte is too much",
        "drift",
        "reading.private_bytes <= reading.allowed_bytes",
        "reading.private_bytes < reading.allowed_bytes",
    ),
    Mutant("a full worker is not choked", "drift", "or private_bytes >= FULL_SHARE * memory_bytes", ""),
    Mutant(
        "a worker that is half full is choked",
        "drift",
        "private_bytes >= FULL_SHARE * memory_bytes",
        "private_bytes >= memory_bytes / 2",
    ),
    Mutant("a kill at the limit means nothing", "drift", "oom_kills > 0 or ", ""),
    Mutant("it is told again and again", "drift", "watched.found is not None and (", "False and ("),
    Mutant("worse is no news", "drift", "(watched.found.thrashes or not thrashes)", "True"),
    Mutant("a new run has drifted already", "drift", "if watched is None or watched.run != run:", "if watched is None:"),
    Mutant("an empty container thrashes", "drift", "if not full or ", "if "),
    Mutant("one second thrashes", "drift", "return now - watched.since_s >= LASTING_S", "return True"),
    Mutant(
        "a pause does not count",
        "drift",
        "            watched.since_s = None\n            return False",
        "            return False",
    ),
    Mutant(
        "a figure allows for less than nothing",
        "drift",
        "max(0, self.memory_bytes - self.weights_bytes)",
        "self.memory_bytes - self.weights_bytes",
    ),
    # a shrunk budget
    Mutant("idle ones stay while busy ones are drained", "admission", "            self._evict(idle, now)\n", ""),
    Mutant(
        "idle ones are drained",
        "admission",
        "for m in answer.drain if m not in idle], None, now)",
        "for m in answer.drain], None, now)",
    ),
    # builds
    Mutant(
        "four bits are made from eight",
        "engines/builds/recipe",
        "stored = wanted if last else sixteen_bits(header)",
        "stored = Quantization.Q8_0",
    ),
    Mutant(
        "an adapter is forgotten on the way to eight bits",
        "engines/builds/recipe",
        "last = len(peft) == len(source.adapters) and",
        "last =",
    ),
    Mutant("every bit more is worth a build", "engines/builds/recipe", "size_bytes > WORTHWHILE * header.weights_bytes", "False"),
    Mutant(
        "a merged model is no smaller and so not made",
        "engines/builds/recipe",
        "if not source.adapters and size_bytes",
        "if size_bytes",
    ),
    Mutant("a GGUF goes without a tokenizer", "engines/builds/recipe", "if not _TOKENIZERS & source.files:", "if False:"),
    Mutant("what lies between two steps takes no disk", "engines/builds/recipe", "self.scratch_bytes += leaves_bytes", "pass"),
    Mutant(
        "an adapter is merged and applied",
        "engines/builds/recipe",
        '            if header.format == "safetensors":\n                continue\n',
        "",
    ),
    Mutant(
        "rows fit every block", "engines/builds/quantization", "if kind in _SMALLER_BLOCKS and columns % _K_BLOCK:", "if False:"
    ),
    Mutant(
        "input and output always share a matrix",
        "engines/builds/quantization",
        "embeddings = embedding if shares_embedding(header) else 2 * embedding",
        "embeddings = embedding",
    ),
    Mutant(
        "an Orin computes with anything",
        "engines/tensorrt_edge_llm",
        "if device.family is Family.ORIN and not needed <= _ON_ORIN:",
        "if device.family is Family.ORIN and not needed:",
    ),
    Mutant(
        "39.20 is 39.2",
        "engines/tensorrt_edge_llm",
        'device.l4t.startswith(f"{_RELEASE}.")',
        "device.l4t.startswith(_RELEASE)",
    ),
    Mutant(
        "the server is started for a longer prompt than was built for",
        "engines/tensorrt_edge_llm",
        "return min(wanted or context_tokens, context_tokens)",
        "return wanted or context_tokens",
    ),
    Mutant(
        "a field that nobody has heard of is sent to a server with a closed list",
        "engines/base",
        "return refused if one.taken_fields is None else refused | (asked - one.taken_fields - one.ignored_fields)",
        "return refused",
    ),
    Mutant(
        "whoever serves the other path that will do is not eligible",
        "router",
        "if ask.api_path not in spec.api_paths and ask.also not in spec.api_paths:",
        "if ask.api_path not in spec.api_paths:",
    ),
    Mutant(
        "bfloat16 is good enough for all",
        "engines/builds/quantization",
        "Quantization.F16 if header.stored in _PRECISE else Quantization.BF16",
        "Quantization.BF16",
    ),
    Mutant(
        "the output is stored like the rest",
        "engines/builds/quantization",
        '_bits("q6_k", matrices.width)',
        "_bits(usual, matrices.width)",
    ),
    Mutant(
        "no layer gets more bits",
        "engines/builds/quantization",
        'better = "q6_k" if quantization is Quantization.Q4_K_M else usual',
        "better = usual",
    ),
    Mutant("the tokenizer weighs nothing", "engines/builds/quantization", "header.vocabulary * _TOKENIZER_ENTRY_BYTES + ", ""),
    # slots
    Mutant("one owner finds another's conversation", "slots", "or not held.name or held.owner != talk.owner", "or not held.name"),
    Mutant("what is in doubt is found", "slots", "held is None or not self.known or not", "held is None or not"),
    Mutant("no name is a name", "slots", "not self.known or not held.name or", "not self.known or"),
    Mutant("the origin is not found", "slots", "held.name in (talk.name, talk.origin)", "held.name == talk.name"),
    Mutant(
        "another owner's is not erased",
        "slots",
        "        foreign = not slot.known or (slot.talk is not None and slot.talk.owner != talk.owner)\n        return Work(",
        "        foreign = not slot.known\n        return Work(",
    ),
    Mutant(
        "what is in doubt is not erased",
        "slots",
        "        foreign = not slot.known or (slot.talk is not None and slot.talk.owner != talk.owner)\n        return Work(",
        "        foreign = slot.talk is not None and slot.talk.owner != talk.owner\n        return Work(",
    ),
    Mutant("what is read is erased before", "slots", "erase=foreign and not restore", "erase=foreign"),
    Mutant("short ones are read", "slots", "restore = kept_tokens >= LEAST_TOKENS", "restore = kept_tokens > 0"),
    Mutant("short ones are written", "slots", "or self.tokens < LEAST_TOKENS", "or False"),
    Mutant("what is in doubt is written", "slots", "if not self.known or self.talk is None", "if self.talk is None"),
    Mutant("what was forgotten is written", "slots", "self.talk is None or not self.talk.name or", "self.talk is None or"),
    Mutant(
        "the same is written again and again",
        "slots",
        "grown_tokens = self.tokens - self.saved_tokens",
        "grown_tokens = self.tokens",
    ),
    Mutant(
        "single questions are written at rest",
        "slots",
        "return self.talk.lasting and grown_tokens >= max(",
        "return grown_tokens >= max(",
    ),
    Mutant(
        "a slot in use is given away",
        "slots",
        "free = [slot for slot in self._slots if slot.lease is None]",
        "free = list(self._slots)",
    ),
    Mutant("the slot that holds it is not preferred", "slots", "return (not slot.holds(talk), used,", "return (False, used,"),
    Mutant(
        "used slots are taken first", "slots", "return (not slot.holds(talk), used,", "return (not slot.holds(talk), not used,"
    ),
    Mutant("several answers are in one slot", "slots", "if chosen is None or talk.scatters:", "if chosen is None:"),
    Mutant(
        "without a slot there is no doubt",
        "slots",
        "if chosen is None or talk.scatters:",
        "if chosen is not None and talk.scatters:",
    ),
    Mutant("doubt never ends", "slots", "            self._scattered.discard(lease)\n", "            pass\n"),
    Mutant(
        "doubt ends before the answers",
        "slots",
        "            self._scattered.discard(lease)\n            self._doubt_free()",
        "            self._scattered.discard(lease)",
    ),
    Mutant("an answer that was cut proves an erasure", "slots", "(whole and slot.talk is not None)", "slot.talk is not None"),
    Mutant("a busy worker is held up", "slots", "if any(slot.lease is not None for slot in self._slots) or", "if"),
    Mutant("nothing has to rest", "slots", "if now - s.used_s >= IDLE_S and", "if"),
    Mutant("the shortest is written first", "slots", "key=lambda slot: -slot.tokens", "key=lambda slot: slot.tokens"),
    Mutant(
        "what is in use is written",
        "slots",
        "if slot.lease is None and slot.is_worth_saving(Moment.LEAVING)",
        "if slot.is_worth_saving(Moment.LEAVING)",
    ),
    Mutant(
        "a restore is written again",
        "slots",
        "slot.tokens = slot.saved_tokens = restored_tokens",
        "slot.tokens = restored_tokens",
    ),
    Mutant("what is kept leaves", "forge/room", "if not file.kept and (may_displace", "if (may_displace"),
    Mutant("files that are wanted leave unasked", "forge/room", "(may_displace or not file.wanted)", "True"),
    Mutant("the most valuable file leaves", "forge/room", "(file.wanted, file.value,", "(file.wanted, -file.value,"),
    Mutant("wanted files leave first", "forge/room", "key=lambda file: (file.wanted,", "key=lambda file: (not file.wanted,"),
    Mutant("nothing is kept free", "forge/room", "+ disk.keep_free_bytes - disk.free_bytes", "- disk.free_bytes"),
    Mutant("scratch takes no room", "forge/room", "kept_bytes + scratch_bytes + disk", "kept_bytes + disk"),
    Mutant("the budget of the disk is not kept", "forge/room", "0 if disk.budget_bytes is None else", "0 if True else"),
    Mutant("what rests is taken up", "forge/tickets", "t.wanted and t.state not in RESTING and now >=", "t.wanted and now >="),
    Mutant("nobody waits for his next try", "forge/tickets", "not in RESTING and now >= t.retry_at_s]", "not in RESTING]"),
    Mutant(
        "what nobody wants is built",
        "forge/tickets",
        "[t for t in tickets if t.wanted and t.state not in RESTING and",
        "[t for t in tickets if t.state not in RESTING and",
    ),
    Mutant("it never gives up", "forge/tickets", "if self.failures >= most else", "if False else"),
    Mutant("the same limit kills again", "forge/tickets", "self.growth *= MORE_MEMORY", "pass"),
    Mutant("it fills the disk again and again", "forge/tickets", "int((self.done_bytes - self.total_bytes) * MORE_DISK)", "0"),
    Mutant("the adopted one is left lying", "forge/tickets", "        not ticket.adopted,\n", ""),
    Mutant("nobody is waited for", "forge/tickets", "        not ticket.asked,\n", ""),
    # TensorRT-LLM on cards
    Mutant("old drivers will do", "engines/gpus", "int(major) < LEAST_DRIVER_CUDA", "int(major) < 0"),
    Mutant("old cards will do", "engines/tensorrt_llm", "too_old(device, LEAST_SM)", "too_old(device, 0)"),
    Mutant("any driver will do", "engines/tensorrt_llm", "_version(device.cuda) < LEAST_CUDA", "False"),
    Mutant("the server takes the whole card", "engines/tensorrt_llm", '"max_tokens": kv_tokens(', '"most_tokens": kv_tokens('),
    Mutant("heads are divided", "engines/tensorrt_llm", " and header.kv_heads % cards == 0", ""),
    Mutant(
        "one card is enough for every model",
        "engines/tensorrt_llm",
        '"--tp_size", str(max(1, len(model.cards)))',
        '"--tp_size", "1"',
    ),
    Mutant(
        "it is called after its mount",
        "engines/tensorrt_llm",
        "    served = SERVED / model.served_name\n",
        "    served = SERVED\n",
    ),
    # TensorRT-LLM on an AGX Orin
    Mutant("any Orin will do", "engines/tensorrt_llm_jetson", "not device.module.startswith(_MODULE)", "False"),
    Mutant("any Jetson Linux will do", "engines/tensorrt_llm_jetson", "device.l4t not in _RELEASES", "not device.l4t"),
    Mutant("GPTQ is converted for any family", "engines/tensorrt_llm_jetson", ' and header.architecture == "llama")', ")"),
    Mutant(
        "GPTQ is quantised once more",
        "engines/tensorrt_llm_jetson",
        "    if is_gptq(header):\n        stored",
        "    if False:\n        stored",
    ),
    Mutant(
        "long prompts do not pass",
        "engines/tensorrt_llm_jetson",
        "str(max(context_tokens, parallel))),\n    )",
        "str(parallel)),\n    )",
    ),
    Mutant("all callers share one cache", "engines/tensorrt_llm_jetson", "tokens = parallel * -(", "tokens = -("),
    # llama.cpp on GPUs
    Mutant(
        "a GPU that is not there is nobody's error",
        "engines/llama_cpp",
        '*("--device", ",".join(f"CUDA{index}" for index in range(cards))),',
        "",
    ),
    Mutant(
        "a GPU that no container can use is used",
        "engines/llama_cpp",
        "return gpus.computes(device) and option",
        "return bool(device.gpus) and option",
    ),
    Mutant("no layers are all layers", "engines/llama_cpp", '"gpu_layers") > 0', '"gpu_layers") >= 0'),
    Mutant("the driver's context is forgotten on cards", "engines/gpus", "there_bytes + CARD_CONTEXT_BYTES", "there_bytes"),
    Mutant("the driver's context is forgotten on a Jetson", "engines/gpus", " + UNIFIED_CONTEXT_BYTES", ""),
    Mutant("embeddings are on the card", "engines/llama_sizes", " + left_bytes + _embedding_bytes(header)", " + left_bytes"),
    Mutant(
        "pages on the way to a GPU are nobody's",
        "engines/llama_sizes",
        'if load.gpu_load == "cached" else 0',
        'if load.gpu_load == "none" else 0',
    ),
    Mutant(
        "what stays behind is on the card",
        "engines/llama_sizes",
        "    weights_bytes, kv_bytes = share * header.weights_bytes,",
        "    weights_bytes, kv_bytes = header.weights_bytes,",
    ),
    Mutant("a matrix of scores is free", "engines/llama_sizes", " + scores_bytes", ""),
    Mutant("cards take equal shares", "engines/gpus", "round(100 * part / total_bytes)", "round(100 / len(parts_bytes))"),
    # the choice of an engine
    Mutant(
        "who failed is first again",
        "engines/choice",
        "    return failed, latest, bool(one.shortage)",
        "    return latest, bool(one.shortage)",
    ),
    Mutant("all have failed, and round it goes", "engines/choice", "-one.setback.at_s if one.setback else 0.0", "0.0"),
    Mutant("too large is no flaw", "engines/choice", "latest, bool(one.shortage), bool(one.lacks)", "latest, bool(one.lacks)"),
    Mutant(
        "what is asked for weighs nothing",
        "engines/choice",
        "bool(one.shortage), bool(one.lacks), names",
        "bool(one.shortage), names",
    ),
    Mutant(
        "a hair's breadth decides", "engines/choice", "fastest.tokens_per_s < FASTER * first.tokens_per_s", "fastest is first"
    ),
    Mutant("who never ran is slow", "engines/choice", "if not first.tokens_per_s or fastest", "if fastest"),
    Mutant("speed makes up for all", "engines/choice", '== (first.setback is None, "", "")]', "or True]"),
    Mutant("who has answered is left", "engines/choice", '"" if first.proven else', '"" if first.setback else'),
    Mutant("a small board is a large one", "engines/choice", "if box.memory_bytes <= SMALL_BYTES:", "if False:"),
    Mutant("a GPU that nobody can use decides", "engines/choice", "if not box.device.has_gpu:", "if not box.device.gpus:"),
    Mutant(
        "one crash moves a model",
        "records",
        "self.resting and not self.proven and spec.choice",
        "not self.proven and spec.choice",
    ),
    Mutant("what works is moved", "records", "self.resting and not self.proven and spec.choice", "self.resting and spec.choice"),
    Mutant(
        "another engine has the failures of the first",
        "records",
        "    return spec.engine, spec.digest",
        '    return "", spec.digest',
    ),
    Mutant("another engine has served", "records", "after[model].load_s, False", "after[model].load_s, record.proven"),
    Mutant(
        "who waits for another engine is refused",
        "scheduler",
        " or self._changes_engine(model):\n            return []",
        ":\n            return []",
    ),
    Mutant(
        "who comes then is refused", "scheduler", "record.retry_at_s and not self._changes_engine(model):", "record.retry_at_s:"
    ),
    # whether GPU memory is charged
    Mutant("CUDA alone is proof", "charging", 'if any(stage["stage"] == "context" for stage in stages):', "if True:"),
    Mutant("too little is taken", "charging", "if taken_bytes > limit_bytes:", "if taken_bytes >= limit_bytes:"),
    Mutant("any refusal is a limit", "charging", "if growth_bytes * 2 >= taken_bytes:", "if True:"),
    Mutant("any failure is a refusal", "charging", 'last.get("code") != _OUT_OF_MEMORY or ', ""),
    Mutant("no kill is an answer", "charging", "if ended.cause is ExitCause.OUT_OF_MEMORY:", "if False:"),
    # for which box images are made
    Mutant(
        "a laptop names its own processors",
        "ops/targets",
        'return "aarch64" if target.device in JETPACKS else machine',
        "return machine",
    ),
    Mutant("JetPack 6.1 is 6.2.2", "ops/targets", '((36, 0), "6.1")', '((36, 0), "6.2.2")'),
    Mutant("a release without images is taken", "ops/targets", " if jetpack in JETPACKS.get(family.value, ()) else None", ""),
    Mutant("the asked release is forgotten", "ops/targets", "jetpack=jetpack or (known[0]", "jetpack=(known[0]"),
    Mutant("wheels for a newer C library", "ops/targets", "range(self.glibc_minor, OLDEST", "range(self.glibc_minor + 1, OLDEST"),
    Mutant("a wish for one board is taken for another", "ops/targets", "if jetpack and jetpack not in known:", "if False:"),
    # what lies on cards, and how a container gets at them
    Mutant(
        "less on cards is believed at once",
        "footprint",
        "if seen_bytes < estimate.gpu_bytes and measured.longest_tokens < TRUSTED_SHARE * context_tokens:",
        "if False:",
    ),
    Mutant(
        "a card that was full gets no more the next time",
        "footprint",
        "int(measured.gpu_out_of_memory_bytes * AFTER_OUT_OF_MEMORY)",
        "measured.gpu_out_of_memory_bytes",
    ),
    Mutant(
        "what nobody saw on cards is nothing",
        "footprint",
        "max(seen_bytes or estimate.gpu_bytes, int(measured.gpu_out",
        "max(seen_bytes, int(measured.gpu_out",
    ),
    Mutant(
        "the default runtime gives GPUs to everybody",
        "drivers/gpus",
        'return {_VISIBLE: "void"} if RUNTIME in engine.runtimes else {}',
        "return {}",
    ),
    Mutant(
        "a runtime that is not there is asked",
        "drivers/gpus",
        "raise EngineError(_NO_WAY.format(device=device))",
        'by_runtime += ids.split(",")',
    ),
    Mutant(
        "a name that nobody knows is asked for",
        "drivers/gpus",
        "if engine.cdi_devices and name not in engine.cdi_devices:",
        "if False:",
    ),
    Mutant("only the last name is asked for", "drivers/gpus", "by_name.append(device)", "by_name = [device]"),
    Mutant("nobody may open the nodes", "drivers/sealing", "[str(group) for group in groups if group != GROUP_GID]", "[]"),
    Mutant("the whole log counts", "complaints", ".splitlines()[-LINES:]", ".splitlines()"),
    Mutant("any error of the driver is want of memory", "complaints", 'error 12\\b"', 'error"'),
    Mutant("the processes of one container only count once", "gpu_memory", "total.update(", "total = Counter("),
    # what a box is
    Mutant("no way is a way", "device", "bool(self.gpus) and self.access is not GpuAccess.NONE", "bool(self.gpus)"),
    Mutant(
        "a part of a Jetson's GPU",
        "device",
        'chosen = "all" if self.unified or not indices else ""',
        'chosen = "" if indices else "all"',
    ),
    Mutant("all cards are given", "device", 'chosen = "all" if self.unified or not indices else ""', 'chosen = "all"'),
    Mutant("a measurement holds on every board", "device", 'what = self.module or "+"', 'what = "+"'),
    Mutant("a measurement holds for every release", "device", 'f"l4t{self.l4t}" if self.l4t', '"l4t" if self.l4t'),
    Mutant("any TensorRT runs an engine", "device", "{self.tensorrt or 'none'}", "{'some'}"),
    Mutant("one card speaks for all", "device", "dict.fromkeys(gpu.sm for gpu in self.gpus)", "dict.fromkeys([self.sm])"),
    Mutant("a card's memory is the box's", "device", "all(gpu.memory_bytes == 0 for gpu in self.gpus)", "True"),
    # bundles
    Mutant("a name climbs out of its folder", "bundles/layout", 'if not piece or piece.startswith("."):', "if not piece:"),
    Mutant("a name begins at the root", "bundles/layout", 'if not piece or piece.startswith("."):', 'if piece.startswith("."):'),
    Mutant("a name need not be text", "bundles/layout", "not piece.isprintable() or ", ""),
    Mutant("a name that no stick takes", "bundles/layout", "_FORBIDDEN & set(piece) or ", ""),
    Mutant("a name that a stick shortens", "bundles/layout", ' or piece.endswith((" ", "."))', ""),
    Mutant("letters are counted, not bytes", "bundles/layout", "len(piece.encode()) > PIECE_BYTES", "len(piece) > PIECE_BYTES"),
    Mutant("folders without end", "bundles/layout", "if len(pieces) > DEPTH:", "if False:"),
    Mutant("capitals make another name", "bundles/layout", ".casefold()", ""),
    Mutant("accents make another name", "bundles/layout", 'unicodedata.normalize("NFC", path)', "path"),
    Mutant("a file below a file", "bundles/layout", "range(1, len(pieces))", "range(1, 1)"),
    Mutant("an empty file has no part", "bundles/layout", "if rest or not whole else", "if rest else"),
    Mutant("one part too many", "bundles/layout", "((rest,) if rest or not whole else ())", "(rest,)"),
    Mutant("a whole file is a part", "bundles/layout", "(name,) if count == 1 else ", ""),
    Mutant(
        "nothing is for every device",
        "bundles/judging",
        "item.device not in (ANY_DEVICE, wish.device)",
        "item.device != wish.device",
    ),
    Mutant("everything is for every device", "bundles/judging", "item.device not in (ANY_DEVICE, wish.device)", "False"),
    Mutant("a box that nobody knows is none", "bundles/judging", "if wish.device and item", "if item"),
    Mutant("what was not asked for is taken", "bundles/judging", "if wish.only and model not in wish.only:", "if False:"),
    Mutant(
        "an engine file is asked for by its own name",
        "bundles/judging",
        "item.model if isinstance(item, EngineItem) else item.name",
        "item.name",
    ),
    Mutant("engine files cannot be left", "bundles/judging", "if not wish.engine_files:", "if False:"),
    Mutant(
        "an engine file is put in the place of one",
        "bundles/judging",
        "if isinstance(item, EngineItem):\n        # Its",
        "if False:\n        # Its",
    ),
    Mutant("a model takes the place of another unasked", "bundles/judging", "if not wish.replace:", "if False:"),
    Mutant("other content counts as the same", "bundles/judging", "elif known.item == verdict.item:", "elif True:"),
    Mutant("what is left claims its name", "bundles/judging", " if verdict.is_taken else verdict\n", "\n"),
    Mutant("a clash is passed over", "bundles/judging", "    if clashing:", "    if False:"),
    Mutant("an engine file is a model's name", "bundles/judging", ' if verdict.at.startswith(f"{MODELS}/")}', "}"),
    Mutant("nothing stays free", "bundles/judging", "missing_bytes + SPARE_BYTES > free_bytes", "missing_bytes > free_bytes"),
    Mutant("refused when it just fits the disk", "bundles/judging", "SPARE_BYTES > free_bytes", "SPARE_BYTES >= free_bytes"),
    Mutant("what is there needs room again", "bundles/judging", "if missing_bytes and missing_bytes", "if missing_bytes"),
    # engine files from elsewhere
    Mutant("a file that arrives is not looked at", "forge/tickets", "if removed or (arrived and", "if removed or (False and"),
    Mutant(
        "a build that rests is begun again by every look",
        "forge/tickets",
        "arrived = order.file is not None and self.order.file is None",
        "arrived = True",
    ),
    Mutant(
        "an older file is the end", "forge/tickets", "if matches and file.fingerprint == self.order.fingerprint:", "if matches:"
    ),
    Mutant(
        "a file that arrived meanwhile is forgotten", "forge/tickets", "file=None if spoilt else self.order.file", "file=None"
    ),
    Mutant(
        "a spoilt file is compared for ever", "forge/tickets", "file=None if spoilt else self.order.file", "file=self.order.file"
    ),
    Mutant("builds come before comparisons of older files", "forge/tickets", "order.to_compare is None,", "order.file is None,"),
    Mutant("everything is compiled for a device", "engines/builds/values", "any(step.gpu for step in self.steps)", "True"),
    # what is written onto boards and disks
    Mutant("a board is flashed whatever is unknown", "ops/flash/boards", "if board.unknown:", "if False:"),
    Mutant("any board on the cable is flashed", "ops/flash/recovery", "if only.product not in board.usb:", "if False:"),
    Mutant("the first of two boards is flashed", "ops/flash/recovery", "if len(waiting) > 1:", "if False:"),
    Mutant("a running board is flashed", "ops/flash/recovery", "if one.product in IN_RECOVERY]", "]"),
    Mutant("a damaged archive is used", "ops/flash/archives", "if wanted and wanted.lower() != got:", "if False:"),
    Mutant(
        "what only a list vouches for is not recorded",
        "ops/flash/archives",
        '(SHA-1 {listed})", record=True)',
        '(SHA-1 {listed})")',
    ),
    Mutant("a secret is shown", "ops/flash/commands", "HIDDEN if one in self.secrets else shlex.quote(one)", "shlex.quote(one)"),
    Mutant(
        "half a root file system is used",
        "ops/flash/journal",
        "step.restart_from if touched and step.restart_from else step.name",
        "step.name",
    ),
    Mutant("another input counts for nothing", "ops/flash/journal", ", step.inputs])", "])"),
    Mutant("data lies behind the table", "ops/flash/layout", ".index(LAST)\n", ".index(LAST) + 1\n"),
    Mutant("the data partition stays small", "ops/flash/layout", "EXPAND | 0x8", "0x8"),
    Mutant("two partitions take the rest", "ops/flash/layout", "if int(attribute, 0) & EXPAND:", "if False:"),
    Mutant("a mounted disk is written", "ops/flash/disk", "    if disk.mounts:", "    if False:"),
    Mutant("a volume's disk is written", "ops/flash/disk", "    if disk.holders:", "    if False:"),
    Mutant(
        "mounts of volumes do not count",
        "ops/flash/disk",
        "for part in parts for one in part",
        "for part in parts[:2] for one in part",
    ),
    Mutant("a part of a disk is written", "ops/flash/disk", "if disk.kind not in WHOLE:", "if False:"),
    Mutant("the image need not fit", "ops/flash/disk", "max(image_bytes, least_bytes)", "least_bytes"),
    # which layers a box lacks, whether it can take a release, and what became of it
    Mutant(
        "a layer on another stack counts", "ops/deploy/layers", "for chain in chains(image.layers)}", "for chain in image.layers}"
    ),
    Mutant(
        "an image is its name",
        "ops/deploy/layers",
        "if (image.tag, image.layers) not in known",
        "if image.tag not in {tag for tag, _ in known}",
    ),
    Mutant("whole images are sent in part", "ops/deploy/layers", "set() if whole else {", "set() if False else {"),
    Mutant("a layer is sent as often as it is needed", "ops/deploy/layers", "tuple(dict.fromkeys(needed))", "tuple(needed)"),
    Mutant("nothing stays free on a box", "ops/deploy/fit", "if free < wanted + SPARE_BYTES:", "if free < wanted:"),
    Mutant(
        "layers need their room once",
        "ops/deploy/fit",
        "(2 * sent_bytes, host.data_free_bytes)",
        "(sent_bytes, host.data_free_bytes)",
    ),
    Mutant("any JetPack will do", "ops/deploy/fit", "jetpack_of(host.l4t) != target.jetpack", "False"),
    Mutant("any processor will do", "ops/deploy/fit", "elif here[tag].architecture != host.architecture:", "elif False:"),
    Mutant("a box's own images do not count", "ops/deploy/fit", "        if tag in there:", "        if False:"),
    Mutant("sudo may ask", "ops/deploy/fit", "if not host.root and not host.sudo:", "if False:"),
    Mutant(
        "a switch that failed at its end went well",
        "ops/deploy/outcome",
        "if now == version and code == 0:",
        "if now == version:",
    ),
    Mutant("a bad release is called untried", "ops/deploy/outcome", 'if found.startswith("bad"):', "if False:"),
    Mutant("a release refused ran before", "ops/deploy/outcome", 'found.startswith("bad") and code == NOT_BEGUN', "False"),
    Mutant("an option is a box", "ops/deploy/inventory", 'not name.startswith("-") and ', ""),
    Mutant("what somebody decided is decided anew", "ops/deploy/engine_settings", ' and "live-restore" not in there', ""),
    Mutant("an engine of a swarm does not start again", "ops/deploy/engine_settings", "if not swarm and ", "if "),
    Mutant("other runtimes are forgotten", "ops/deploy/engine_settings", '{**runtimes, "nvidia": NVIDIA}', '{"nvidia": NVIDIA}'),
    Mutant("a script is asked for a passphrase", "ops/deploy/commands", '"no" if may_ask else "yes"', '"no"'),
)
