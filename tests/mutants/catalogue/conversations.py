"""Which conversation is in which slot."""

from tests.mutants.mutant import Mutant

MUTANTS = (
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
)
