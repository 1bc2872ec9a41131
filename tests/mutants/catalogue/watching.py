"""What the box does meanwhile: guard, drift, heat and power, complaints."""

from tests.mutants.mutant import Mutant

MUTANTS = (
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
    # complaints
    Mutant("the whole log counts", "complaints", ".splitlines()[-LINES:]", ".splitlines()"),
    Mutant("any error of the driver is want of memory", "complaints", 'error 12\\b"', 'error"'),
)
