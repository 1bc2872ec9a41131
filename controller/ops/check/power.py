"""Power modes and heat."""

import math
from collections.abc import Iterable
from typing import Final

from controller.ops.check.values import Facts, Finding, Severity, curable, note, warning
from controller.ops.remedy import Remedy, Run, Says
from controller.pace import HEAT_COUNT, Cause, signs
from controller.power import PowerMode

NEARLY_HOT_CELSIUS: Final = 90.0
MORE_AIR: Final = "give it more air, and look at the fan; `windlass status` says when it is over"


def modes(facts: Facts) -> Iterable[Finding]:
    """Judge the power mode: by what it caps, never by its number."""
    known = facts.condition.power.modes
    now, strongest = known.now, known.strongest
    if now is None or strongest is None or now.number == strongest.number:
        return
    share = known.share
    yield curable(
        "power mode",
        f"the mode is {now.name} (nvpmodel -m {now.number}), and {strongest.name} is the strongest of this board: "
        f"{_cost(now, share)}",
        _mode(strongest, now),
        also="(it may ask whether to restart the box at once)\nsudo jetson_clocks   keeps the clocks up until the next start",
        severity=Severity.WARNING if share < 1.0 else Severity.NOTE,
    )


def limits(facts: Facts) -> Iterable[Finding]:
    """Name the limits that somebody has set on processors and cards; a board has a mode for that."""
    reading = facts.condition.power
    if reading.modes.now is not None:
        return
    for sign in signs(reading, reading, elapsed_s=0.0):
        if sign.cause is Cause.MODE:
            yield note(
                "power limit",
                f"{sign.text}, and fewer callers are served at once for it",
                "sudo cpupower frequency-info, or nvidia-smi -q -d POWER   shows it; whoever has set it can lift it",
            )


def clocks(facts: Facts) -> Iterable[Finding]:
    """Say that the GPU of a board in its strongest mode slows down between answers, where it does."""
    known = facts.condition.power.modes
    strongest = known.strongest
    if facts.condition.clocks_held is False and strongest is not None and known.current == strongest.number:
        yield note(
            "clocks",
            "the GPU's clock goes down between answers, so the first tokens after a pause come later",
            "sudo jetson_clocks   keeps it up until the next start, for more heat and power; --restore takes it back",
        )


def heat(facts: Facts) -> Iterable[Finding]:
    """Judge what slows the box down at this moment, and what its supply has done since it was started."""
    reading = facts.condition.power
    hot = [sign for sign in signs(reading, reading, elapsed_s=0.0) if sign.cause is Cause.HEAT]
    for sign in hot:
        yield warning("heat", sign.text, MORE_AIR)
    hottest = max(reading.spots, key=lambda spot: spot.celsius, default=None)
    if facts.device.is_jetson and not hot and hottest is not None and hottest.celsius >= NEARLY_HOT_CELSIUS:
        yield warning(
            "heat",
            f"{hottest.name} is at {hottest.celsius:.0f} degrees C: a board that stays above {NEARLY_HOT_CELSIUS:.0f} is about "
            "to be slowed down",
            MORE_AIR,
        )
    for name, count in reading.counts.items():
        if count and HEAT_COUNT not in name:
            yield warning(
                "supply",
                f"since it was started, the box was slowed down {count} time{'s' if count > 1 else ''} by {name}",
                "use the supply that came with the board, and nothing else on its USB ports; or choose a mode that draws less",
            )


def _cost(mode: PowerMode, share: float) -> str:
    if share < 1.0:
        return f"memory or GPU runs at {share:.0%} of its clock, and so do models"
    if math.isfinite(mode.gpu_hz):
        return f"it caps the GPU at {mode.gpu_hz / 1e6:.0f} MHz"
    return "it caps the processors, if anything"


def _mode(wanted: PowerMode, now: PowerMode) -> Remedy:
    return Remedy(
        name="power-mode",
        # Where the GPU is in use, many modes can be set only by a restart: then it asks for one, and changes nothing without it.
        steps=(Run(argv=("nvpmodel", "-m", str(wanted.number)), answer="no\n", wants_reboot="Reboot required"),),
        proofs=(Says(argv=("nvpmodel", "-q"), text=f"NV Power Mode: {wanted.name}"),),
        undo=f"sudo nvpmodel -m {now.number}",
        consent="a stronger mode draws more than a small supply or a battery gives, and makes more heat",
    )
