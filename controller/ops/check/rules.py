"""All rules, in the order in which their findings are told."""

from collections.abc import Iterable

from controller.ops.check import engine, gpu, jetson, memory, network, place, power, storage, update
from controller.ops.check.values import Facts, Finding, Severity, error


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every problem, the worst first."""
    found = [
        *_config(facts),
        *engine.engine(facts),
        *engine.images(facts.engine),
        *jetson.release(facts),
        *gpu.access(facts),
        *gpu.images(facts),
        *gpu.specifications(facts),
        *gpu.driver(facts),
        *gpu.cards(facts),
        *gpu.engines_for(facts),
        *place.folders(facts),
        *place.disk(facts),
        *place.sockets(facts),
        *memory.memory(facts),
        *memory.swap(facts),
        *jetson.desktop(facts),
        *jetson.memory(facts),
        *power.modes(facts),
        *power.limits(facts),
        *power.clocks(facts),
        *power.heat(facts),
        *update.last_update(facts),
        *storage.speed(facts),
        *storage.engine_disk(facts),
        *gpu.raw_table(facts),
        *network.listening(facts),
        *memory.models(facts),
        *memory.cards(facts),
    ]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def _config(facts: Facts) -> Iterable[Finding]:
    for problem in facts.config_problems:
        yield error("configuration", problem, "correct the file (or the environment variable) and run `windlass check` again")
