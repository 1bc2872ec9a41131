"""What `windlass doctor` prints for people."""

from collections.abc import Sequence
from typing import Final

from rich.markup import escape

from controller.ops.doctor import Deed, State
from controller.ops.remedy import Need
from controller.ops.tables import colored

_AFTERWARDS: Final = {
    Need.ENGINE: "sudo systemctl restart docker   when no answer is under way: its containers end with it",
    Need.REBOOT: "sudo reboot",
}


def deed_lines(deeds: Sequence[Deed]) -> list[str]:
    """Show what would be done, or what was."""
    if not deeds:
        return [f"{colored('ok')}: nothing was found that could be acted on; `windlass check` says what else there is"]
    lines = [line for deed in deeds for line in _one(deed)]
    if any(deed.state is State.PLANNED for deed in deeds):
        lines += ["", "nothing was changed; `sudo windlass doctor --fix` does it"]
    needed = [need for need in Need if need is not Need.NOTHING and any(deed.need is need for deed in deeds)]
    for need in needed:
        names = ", ".join(deed.remedy.name for deed in deeds if deed.need is need)
        lines += ["", f"{names}: {need.value} is still needed", f"    {_AFTERWARDS[need]}"]
    return lines


def _one(deed: Deed) -> list[str]:
    remedy = deed.remedy
    lines = [f"{colored(deed.state.value)}: {remedy.name}: {escape(deed.about)}"]
    match deed.state:
        case State.PLANNED:
            lines += [f"    {escape(command)}" for command in remedy.commands]
            lines += [f"    then {escape(str(proof))}" for proof in remedy.proofs]
            lines += [f"    afterwards {remedy.need.value} is needed"] if remedy.need is not Need.NOTHING else []
            lines.append(f"    to undo it: {escape(remedy.undo)}")
        case State.ASKS:
            lines += [f"    {escape(command)}" for command in remedy.commands]
            lines.append(f"    not done unless it is named: {escape(remedy.consent)}")
            lines.append(f"    sudo windlass doctor --fix {remedy.name}")
        case State.FAILED | State.YOURS:
            lines.append(f"    {escape(deed.why)}")
        case State.DONE:
            lines.append(f"    to undo it: {escape(remedy.undo)}")
        case State.ALREADY:
            pass
    return lines
