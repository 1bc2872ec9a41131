"""All rules, in the order in which their findings are told."""

from collections.abc import Iterable

from controller.ops.check import engine, memory, network, place
from controller.ops.check.values import Facts, Finding, Severity, error


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every problem, errors first."""
    found = [
        *_config(facts),
        *engine.engine(facts.engine),
        *engine.images(facts.engine),
        *place.folders(facts),
        *place.disk(facts),
        *place.sockets(facts),
        *memory.memory(facts),
        *memory.swap(facts),
        *network.listening(facts),
        *memory.models(facts),
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def _config(facts: Facts) -> Iterable[Finding]:
    for problem in facts.config_problems:
        yield error("configuration", problem, "correct the file (or the environment variable) and run `windlass check` again")
