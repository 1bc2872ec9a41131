"""Who is served and who is resident: scheduler, admission, drains, residency, callers, records; who waits for a controller."""

from tests.mutants.mutant import Mutant

MUTANTS = (
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
    Mutant("waiting callers keep all replicas", "drains", " if self._residency.is_principal(model) else ()", ""),
    Mutant(
        "a replica that must go serves on",
        "drains",
        "        if worker != self._residency.principal(waiter.model):\n            return False\n",
        "",
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
    Mutant("the grace is for everybody", "residency", " if model in self._adopted else 0.0", ""),
    Mutant("the place is forgotten", "residency", "        self.places[model] = cards\n", "        self.places[model] = ()\n"),
    Mutant("the place is never given up", "residency", "        self.places.pop(model, None)\n", ""),
    Mutant(
        "an adopted worker has no place", "residency", "        self.places |= {m: workers[m].cards for m in self._adopted}\n", ""
    ),
    Mutant("what runs lies where it was to", "residency", "            return labelled.cards\n", "            pass\n"),
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
    Mutant("a promise outlives who was promised", "callers", "promised[gone.places] -= 1", "promised[gone.places] -= 0"),
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
    Mutant(
        "who is waited for has no place yet",
        "scheduler",
        "return {**self._admission.coming, **self._residency.places}",
        "return self._residency.places",
    ),
    Mutant("the first worker gets all", "scheduler", "min(free, key=lambda w: len(self.record(w).leases))", "free[0]"),
    Mutant(
        "a dead replica is mourned", "scheduler", "if worker in self.desired and worker == model:", "if worker in self.desired:"
    ),
    Mutant(
        "one dead worker is a dead model",
        "scheduler",
        " or self._residency.workers_of(model) or self._changes_engine(model):\n            return []",
        " or self._changes_engine(model):\n            return []",
    ),
    Mutant("what was waited before is forgotten", "scheduler", "since_s=now - waited_s", "since_s=now"),
    Mutant("the queue has no limit", "scheduler", "if self.waiting >= self.rules.queue_limit:", "if False:"),
    Mutant(
        "who waits for another engine is refused",
        "scheduler",
        " or self._changes_engine(model):\n            return []",
        ":\n            return []",
    ),
    Mutant(
        "who comes then is refused", "scheduler", "record.retry_at_s and not self._changes_engine(model):", "record.retry_at_s:"
    ),
    # admission
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
    Mutant("wishes come before callers", "admission", "        if self._callers:\n            return\n", ""),
    Mutant("a shrunk budget evicts nobody", "admission", "if committed.fits(capacity):", "if True:"),
    Mutant("pinned models go like all others", "admission", "if isinstance(answer, Refuse):  #", "if True:  #"),
    Mutant(
        "who lies on another card leaves for a card that shrank", "admission", " and committed.lacks(capacity, r.charge)]", "]"
    ),
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
    Mutant("idle ones stay while busy ones are drained", "admission", "            self._evict(idle, now)\n", ""),
    Mutant(
        "idle ones are drained",
        "admission",
        "for m in answer.drain if m not in idle], None, now)",
        "for m in answer.drain], None, now)",
    ),
    # replicas
    Mutant("replicas are pinned", "replicas", ", pinned=False, tier", ", tier"),
    Mutant("one replica too few", "replicas", "range(1, count + 1)", "range(1, max(2, count))"),
    Mutant("replicas have tiers", "replicas", ", tier=Tier.LARGE)", ")"),
    # gateway/absence
    Mutant("callers wait as long as people do", "gateway/absence", "LIMIT_S: Final = 300.0", "LIMIT_S: Final = 20.0"),
    Mutant("people wait as long as callers do", "gateway/absence", "min(ALARM_S, self.limit_s)", "self.limit_s"),
    Mutant("a controller that is given up is well", "gateway/absence", "min(ALARM_S, self.limit_s)", "ALARM_S"),
    Mutant(
        "one waits for a controller that was never there",
        "gateway/absence",
        "since_s: float = -math.inf",
        "since_s: float = math.inf",
    ),
    Mutant("a deadline counts from the loss", "gateway/absence", "asked_at_s + deadline_s)", "self.since_s + deadline_s)"),
    Mutant(
        "a deadline outlasts the limit",
        "gateway/absence",
        "min(self.until_s, asked_at_s + deadline_s)",
        "asked_at_s + deadline_s",
    ),
)
