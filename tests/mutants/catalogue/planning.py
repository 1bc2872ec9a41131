"""What fits where: planner, reconcile, placement, cards, charges."""

from tests.mutants.mutant import Mutant

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
    Mutant("creations come before removals", "reconcile", "    actions += [Remove(m) for m in spare[:surplus]]\n", ""),
    Mutant("containers without a limit", "reconcile", "missing[: len(missing) - max(0, surplus - len(spare))]", "missing"),
    Mutant("another place is no reason", "reconcile", "spec.memory_bytes, spec.cards)", "spec.memory_bytes, worker.cards)"),
    Mutant(
        "strangers start as replicas",
        "reconcile",
        "if spec is None or spec.spec_hash != worker.spec_hash:\n        return Charge",
        "if spec is None:\n        return Charge",
    ),
    # charges
    Mutant("nobody helps a card that shrank", "charges", "return any(self.card_bytes(part.card) > ", "return any(0 > "),
    Mutant(
        "nobody helps memory that shrank",
        "charges",
        "if charge.total_bytes and self.total_bytes > capacity.ram_bytes:",
        "if False:",
    ),
    Mutant("what lies on a card is free", "charges", "self._cards.get(card, 0) + size_bytes\n", "0\n"),
    Mutant("a card is never short", "charges", "held_bytes - capacity.card_bytes(card))", "0)"),
    Mutant("who leaves a card leaves it full", "charges", "            self._cards[card] -= size_bytes\n", "            pass\n"),
    Mutant("the newcomer takes nothing of a card", "charges", " + extra.get(card, 0)", ""),
    Mutant("a card that is gone has room", "charges", "if index == card), 0)", "if index == card), 1 << 60)"),
    Mutant("pinned ones leave room on a card", "charges", "size_bytes - self._cards.get(card, 0)) for", "size_bytes) for"),
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
    # cards
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
    # placement
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
    # charging
    Mutant("CUDA alone is proof", "charging", 'if any(stage["stage"] == "context" for stage in stages):', "if True:"),
    Mutant("too little is taken", "charging", "if taken_bytes > limit_bytes:", "if taken_bytes >= limit_bytes:"),
    Mutant("any refusal is a limit", "charging", "if growth_bytes * 2 >= taken_bytes:", "if True:"),
    Mutant("any failure is a refusal", "charging", 'last.get("code") != _OUT_OF_MEMORY or ', ""),
    Mutant("no kill is an answer", "charging", "if ended.cause is ExitCause.OUT_OF_MEMORY:", "if False:"),
    # footprint
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
    # gpu_memory
    Mutant("the processes of one container only count once", "gpu_memory", "total.update(", "total = Counter("),
)
