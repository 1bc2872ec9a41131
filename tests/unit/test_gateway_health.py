"""The controller's health, asked once for a crowd."""

import asyncio

import pytest

from controller.errors import Reason
from controller.gateway.health import KEPT_S, Health
from controller.gateway.problems import ProblemError

pytestmark = pytest.mark.looptime(noop_cycles=1)
ANSWER_S = 0.25


class Controller:
    """Answers in a quarter of a second, or not at all, and counts the questions."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def call(self, verb: str, *, timeout_s: float) -> object:
        """Take a question."""
        self.asked.append(verb)
        await asyncio.sleep(ANSWER_S if self.answers else timeout_s)
        if not self.answers:
            raise ProblemError(Reason.UNAVAILABLE, "the controller did not answer")
        return {"state": "ok", "number": len(self.asked)}


async def test_a_crowd_costs_one_question() -> None:
    """Who comes while it is asked, and who comes within a second, hears the same answer."""
    controller = Controller()
    health = Health(controller)
    answers = await asyncio.gather(*(health.ask(timeout_s=3.0) for _ in range(100)))
    await asyncio.sleep(KEPT_S - 0.01)
    later = await health.ask(timeout_s=3.0)

    assert ["health"] == controller.asked
    assert [{"state": "ok", "number": 1}] * 101 == [*answers, later]


async def test_an_answer_grows_old() -> None:
    """After a second the controller is asked again."""
    controller = Controller()
    health = Health(controller)
    await health.ask(timeout_s=3.0)
    await asyncio.sleep(KEPT_S)
    later = await health.ask(timeout_s=3.0)

    assert {"state": "ok", "number": 2} == later


async def test_a_controller_that_does_not_answer_is_asked_once_for_all() -> None:
    """A crowd waits one time limit together and not one after the other, and a second later it is asked again."""
    controller = Controller(answers=False)
    health = Health(controller)
    answers = await asyncio.gather(*(health.ask(timeout_s=3.0) for _ in range(100)), return_exceptions=True)
    took_s = asyncio.get_running_loop().time()
    controller.answers = True
    await asyncio.sleep(KEPT_S)

    assert 3.0 == took_s
    assert {"the controller did not answer"} == {str(answer) for answer in answers}
    assert {"state": "ok", "number": 2} == await health.ask(timeout_s=3.0)
