"""Server-sent events as OpenAI frames them."""

import json
from collections.abc import Mapping
from typing import Any, Final

MEDIA_TYPE: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"


def frame(body: Mapping[str, Any]) -> bytes:
    """Write one event; JSON escapes every line break, so one line is enough."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
