"""What is in memory, asked of the set of residents itself."""

from dataclasses import replace

from controller.charges import OnCard
from controller.planner import MAX_RESIDENTS
from controller.residency import Residency
from controller.rules import Rules
from controller.spec import ModelName
from tests.core.world import model_spec, worker

A = ModelName("a")


def test_there_are_places_as_well_as_bytes() -> None:
    """With memory for all of them, one more than the most there may be does not fit, and it does where one leaves."""
    names = [ModelName(f"m{number}") for number in range(MAX_RESIDENTS)]
    residency = Residency(Rules(budget_bytes=1000), {n: model_spec(n) for n in names}, {n: worker(n) for n in names}, 0.0)
    one_more = model_spec("more").charge

    assert not residency.fits(one_more)
    assert residency.fits(one_more, without=names[:1])


def test_a_worker_lies_where_its_label_says() -> None:
    """Wherever somebody has meant to put it."""
    lies, meant = (OnCard(0, 3),), (OnCard(1, 3),)
    residency = Residency(Rules(budget_bytes=9), {A: model_spec("a", gpu=3)}, {A: replace(worker("a"), cards=lies)}, 0.0)
    residency.places[A] = meant

    assert lies == residency.cards_of(A)
    residency.observe({}, 1.0)
    assert meant == residency.cards_of(A)
