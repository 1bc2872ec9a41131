"""Callers that go on until the power is gone, and somebody who watches what the box was doing then."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import httpx

from controller.errors import WindlassError
from tests.appliance.box import Box

TOKENS: Final = 12
_LOOK_S: Final = 0.5
_UNDER_WAY: Final = {"starting", "stopping"}


@dataclass(slots=True)
class Seen:
    """
    What was going on; it ends with the power.

    Attributes:
        answers: models and what they said.
        refused: answers that were none.
        building: a build was under way when it was last looked.
        swapping: a model was coming or leaving when it was last looked.
        looks: how often it was looked.

    """

    answers: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    building: bool = False
    swapping: bool = False
    looks: int = 0


@contextmanager
def traffic(box: Box, models: Sequence[str], *, callers: int, chance: random.Random) -> Iterator[Seen]:
    """Have callers ask these models, each another one every time, and watch; all of it ends with the block or with the power."""
    seen, stop = Seen(), threading.Event()
    orders = [chance.sample(models, len(models)) for _ in range(callers)]
    threads = [threading.Thread(target=_ask, args=(box, order, seen, stop), daemon=True) for order in orders]
    threads.append(threading.Thread(target=_watch, args=(box, seen, stop), daemon=True))
    with ExitStack() as ending:
        for thread in threads:
            thread.start()
            ending.callback(thread.join, 60)
        ending.callback(stop.set)
        yield seen


def _ask(box: Box, models: Sequence[str], seen: Seen, stop: threading.Event) -> None:
    with suppress(httpx.HTTPError), box.caller() as caller:  # the power is gone
        while not stop.is_set():
            for model in models:
                answer = caller.complete(model, tokens=TOKENS)
                if answer.status_code == httpx.codes.OK:
                    seen.answers.append((model, answer.json()["choices"][0]["text"]))
                else:
                    seen.refused.append(answer.text)


def _watch(box: Box, seen: Seen, stop: threading.Event) -> None:
    while not stop.wait(_LOOK_S):
        with suppress(WindlassError):  # too busy to say, or without power
            workers = box.api.get("/status")["workers"]
            builds = box.api.get("/builds")["builds"]
            seen.swapping = any(worker["status"] in _UNDER_WAY for worker in workers)
            seen.building = any(build["state"] == "building" for build in builds)
            seen.looks += 1
