"""What the controller last said about models and keys, indexed for the questions that every request asks."""

import difflib
from typing import Final

import orjson

from controller.errors import Reason
from controller.gateway.problems import ProblemError
from controller.wire import Catalog, KeyCard, ModelCard

_SHOWN_CHARACTERS: Final = 80
_MOST_COMPARED: Final = 1000


class Directory:
    """One catalog, immutable; a new one replaces it whole."""

    def __init__(self, catalog: Catalog) -> None:
        """Index the models by name and the keys by digest."""
        self.models = {card.name: card for card in catalog.models}
        self.keys = {key.digest.lower(): key for key in catalog.keys}
        self.longest_context_tokens = max((card.context_tokens for card in catalog.models), default=0)
        self._list = orjson.dumps({"object": "list", "data": [listed(card) for card in catalog.models]})

    def list_bytes(self) -> bytes:
        """Return the answer of `GET /v1/models`, made once for each catalog."""
        return self._list

    def key(self, digest: str) -> KeyCard | None:
        """Return the key whose secret has this SHA-256."""
        return self.keys.get(digest)

    def model(self, name: str, *, param: str = "model") -> ModelCard:
        """
        Return a model by its exact name.

        Raises:
            ProblemError: there is none; the text offers names that look alike.

        """
        card = self.models.get(name)
        if card is None:
            near = self.near(name)
            if near:
                hint = f"did you mean {' or '.join(near)}?"
            else:
                hint = "GET /v1/models lists what there is" if self.models else "no model is registered yet"
            raise ProblemError(
                Reason.UNKNOWN_MODEL,
                f"the model {shown(name)} does not exist; {hint}",
                param=param,
                details={"near": near} if near else None,
            )
        return card

    def near(self, name: str) -> list[str]:
        """Return up to three names that look like *name*, the likest first."""
        wanted = name[:_SHOWN_CHARACTERS].lower()
        names = list(self.models)
        if len(names) > _MOST_COMPARED:  # comparing costs about 10 us a name, and a typo rarely hits the first letter
            names = [known for known in names if known[:1] == wanted[:1]][:_MOST_COMPARED]
        found = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
        return found or [known for known in self.models if wanted and (known.startswith(wanted) or wanted.startswith(known))][:3]


def listed(card: ModelCard) -> dict[str, object]:
    """Return a model as OpenAI's list shows one, with a few keys of ours that its clients ignore."""
    return {
        "id": card.name,
        "object": "model",
        "created": card.created_s,
        "owned_by": "windlass",
        "engine": card.engine,
        "tier": card.tier,
        "tags": list(card.tags),
        "context_length": card.context_tokens,
        "api_paths": list(card.api_paths),
    }


def shown(name: str) -> str:
    """Quote a name that a stranger sent: short, and with nothing in it that a terminal would obey."""
    return ascii(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…")
