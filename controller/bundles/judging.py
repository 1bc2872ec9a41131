"""What is to be taken of bundles, and what is not: decided before anything is copied."""

import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from controller.bundles.manifest import MODELS, Bundle, EngineItem, Item
from controller.bundles.reporting import State
from controller.errors import BundleRefusedError
from controller.store.fingerprint import ANY_DEVICE
from controller.units import MIB, format_bytes

SPARE_BYTES: Final = 64 * MIB
"""Left free on the box's disk: a full one stops measurements and conversations."""
_HELD: Final = (State.COPIED, State.REPLACED, State.THERE)
"""The box has it afterwards as the bundle does."""


class Present(enum.Enum):
    """What lies in the home under the name of a folder of a bundle."""

    NOTHING = enum.auto()
    """No such folder."""
    SAME = enum.auto()
    """The same files, with the same content."""
    OTHER = enum.auto()
    """A folder with other files, or other content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    What somebody wants of bundles.

    Attributes:
        only: these models and their engine files; all of them if it is empty.
        replace: a model of the same name with other content makes place.
        keep: a model of the same name with other content stays, and is no reason to refuse the others.
        engine_files: take engine files as well.
        device: what this box is, as engine files name it; empty where nobody could say.

    """

    only: frozenset[str] = frozenset()
    replace: bool = False
    keep: bool = False
    engine_files: bool = True
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    What is to become of a folder of a bundle.

    Attributes:
        at: where it lies, in the bundle and in the home.
        item: what it consists of.
        state: what will have become of it.
        reason: why, where it is not plain.

    """

    at: str
    item: Item
    state: State
    reason: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether anything is to be done for it."""
        return self.state in (State.COPIED, State.REPLACED)


def judge(bundle: Bundle, wish: Wish, present: Callable[[str, Item], Present]) -> tuple[Verdict, ...]:
    """Say what is to become of each folder of a bundle, in the order in which they are taken."""
    verdicts = [_judge_one(at, item, wish, present) for at, item in bundle.items()]
    other = {one.item.name for one in verdicts if not isinstance(one.item, EngineItem) and one.state not in _HELD}
    return tuple(_unless_model_differs(verdict, other) for verdict in verdicts)


def _unless_model_differs(verdict: Verdict, other: Collection[str]) -> Verdict:
    """Leave an engine file out where the box keeps another model of that name, which would never use it."""
    if not isinstance(verdict.item, EngineItem) or not verdict.is_taken or verdict.item.model not in other:
        return verdict
    return replace(verdict, state=State.LEFT, reason=f"it was built of another {verdict.item.model} than this box has")


def _judge_one(at: str, item: Item, wish: Wish, present: Callable[[str, Item], Present]) -> Verdict:
    if reason := _unwanted(item, wish):
        return Verdict(at=at, item=item, state=State.LEFT, reason=reason)
    match present(at, item):
        case Present.NOTHING:
            return Verdict(at=at, item=item, state=State.COPIED)
        case Present.SAME:
            return Verdict(at=at, item=item, state=State.THERE)
        case Present.OTHER:
            return _judge_other(at, item, wish)


def _unwanted(item: Item, wish: Wish) -> str:
    model = item.model if isinstance(item, EngineItem) else item.name
    if wish.only and model not in wish.only:
        return "it was not asked for"
    if not isinstance(item, EngineItem):
        return ""
    if not wish.engine_files:
        return "engine files were not asked for"
    if wish.device and item.device not in (ANY_DEVICE, wish.device):
        return f"it was built for {item.device}, and this box is {wish.device}: {item.model} has its own built here"
    return ""


def _judge_other(at: str, item: Item, wish: Wish) -> Verdict:
    if isinstance(item, EngineItem):
        # Its name says what it was built from; the one that is there is checked against its own manifest by the controller.
        return Verdict(at=at, item=item, state=State.THERE, reason="one that was built from the same is there")
    if wish.keep:
        return Verdict(at=at, item=item, state=State.LEFT, reason="a model of this name with other content is there, and stays")
    if not wish.replace:
        return Verdict(at=at, item=item, state=State.FAILED, reason="a model of this name with other content is there")
    return Verdict(at=at, item=item, state=State.REPLACED)


def once(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Take each folder from the first bundle that has it, where the others have the same; of other content, take none."""
    first: dict[str, Verdict] = {}
    answer = []
    for verdict in verdicts:
        known = first.setdefault(verdict.at, verdict) if verdict.is_taken else verdict
        if known is verdict:
            answer.append(verdict)
        elif known.item == verdict.item:
            answer.append(replace(verdict, state=State.THERE, reason="another of the bundles has it as well"))
        else:
            answer.append(replace(verdict, state=State.FAILED, reason="another of the bundles has other content under this name"))
    return tuple(answer)


def check_clashes(verdicts: Collection[Verdict]) -> None:
    """
    Refuse everything where a model would take the place of another.

    Raises:
        BundleRefusedError: with all of their names.

    """
    clashing = [verdict for verdict in verdicts if verdict.state is State.FAILED]
    if clashing:
        said = "; ".join(f"{verdict.at}: {verdict.reason}" for verdict in clashing)
        raise BundleRefusedError(f"{said}; --replace puts it in place of what is there, --keep takes the others")


def check_asked(verdicts: Collection[Verdict], wish: Wish) -> None:
    """
    Refuse names that no bundle has.

    Raises:
        BundleRefusedError: with the names that there are.

    """
    models = {verdict.item.name for verdict in verdicts if verdict.at.startswith(f"{MODELS}/")}
    if missing := sorted(wish.only - models):
        raise BundleRefusedError(f"wanted {', '.join(missing)}, and there are only: {', '.join(sorted(models)) or 'none'}")


def check_room(*, missing_bytes: int, free_bytes: int, where: str) -> None:
    """
    Refuse what does not fit on the disk.

    Raises:
        BundleRefusedError: with what is wanted and what is there.

    """
    if missing_bytes and missing_bytes + SPARE_BYTES > free_bytes:
        raise BundleRefusedError(
            f"{where}: wanted {format_bytes(missing_bytes + SPARE_BYTES)} of free disk, there are {format_bytes(free_bytes)}; "
            "make room, or take some of it with --only"
        )
