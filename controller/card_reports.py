"""What operators see of cards, as plain JSON values: how full they are, and who lies or would lie there. Pure."""

from collections.abc import Mapping
from typing import Any

from controller.budget import Budget
from controller.charges import Account, Cards, Charge
from controller.device import Device
from controller.spec import ModelName
from controller.state import Worker


def card_rows(device: Device, budget: Budget, committed: Account, workers: Mapping[ModelName, Worker]) -> list[dict[str, Any]]:
    """Describe the cards for `/status`; a GPU without memory of its own is none."""
    held, left, gpus = held_by(workers), budget.left, {gpu.index: gpu for gpu in device.gpus}
    return [
        {
            "index": card,
            "name": gpus[card].name if card in gpus else "",
            "total_bytes": gpus[card].memory_bytes if card in gpus else 0,
            "configured_budget_bytes": configured_bytes,
            "budget_bytes": left.card_bytes(card),
            "committed_bytes": committed.card_bytes(card),
            "held_bytes": held.card_bytes(card),
            "free_bytes": max(0, left.card_bytes(card) - held.card_bytes(card)),
            "workers": [
                {"model": model, "bytes": part.size_bytes}
                for model, worker in sorted(workers.items())
                for part in worker.cards
                if worker.holds and part.card == card
            ],
        }
        for card, configured_bytes in budget.total.cards
    ]


def place_rows(cards: Cards, budget: Budget, workers: Mapping[ModelName, Worker]) -> list[dict[str, Any]]:
    """Describe where a model lies or would lie, for `/plan`."""
    held, left = held_by(workers), budget.left
    return [
        {
            "index": card,
            "bytes": size_bytes,
            "budget_bytes": left.card_bytes(card),
            "free_bytes": max(0, left.card_bytes(card) - held.card_bytes(card)),
        }
        for card, size_bytes in cards
    ]


def parts(cards: Cards) -> list[dict[str, int]]:
    """Describe what is taken of which cards."""
    return [{"index": card, "bytes": size_bytes} for card, size_bytes in cards]


def held_by(workers: Mapping[ModelName, Worker]) -> Account:
    """Return what workers hold, those included that are stopping."""
    return Account(Charge(total_bytes=w.memory_bytes, cards=w.cards) for w in workers.values() if w.holds)
