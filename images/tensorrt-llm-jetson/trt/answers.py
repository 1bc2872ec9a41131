"""
One answer by the executor: a request to it, and what comes back of it as text.

The executor batches what it was given by itself, on its own threads; here is only who waits for it, and that is one thread
(`worker.runner`). Whoever of the answers waits takes what has come for all of them, so that nobody's token waits for another's.
"""

import secrets
import time
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Any, Final

from worker.detokenizer import Detokenizer
from worker.prompts import Tokenizer
from worker.sequence import Finished, FinishReason, Job, Piece, Sampling, Timings
from worker.stops import StopFinder

WAIT: Final = timedelta(milliseconds=20)
"""How long a new request, or the end of one that nobody wants any more, may wait for those that are answered."""


class ExecutorError(Exception):
    """The executor did not answer a request."""


class Answers:
    """An engine in memory, which continues text."""

    def __init__(self, executor: Any, bindings: Any, tokenizer: Tokenizer, *, eos_tokens: frozenset[int]) -> None:  # noqa: ANN401 -- theirs, without types
        self._executor = executor
        self._bindings = bindings
        self._tokenizer = tokenizer
        self._eos_tokens = eos_tokens
        self._arrived: dict[int, list[Any]] = {}

    def __call__(self, job: Job, emit: Callable[[Piece | Finished], None]) -> Generator[None, None, None]:
        """Answer *job*; the request is taken back when nobody waits for the answer any more, or the rest of it."""
        begun_s = time.monotonic()
        request_id = self._executor.enqueue_request(self._request(job))
        self._arrived[request_id] = []
        over = False
        text, stops = Detokenizer(self._decode, job.prompt), StopFinder(job.stops)
        produced, first_s = 0, 0.0
        reason: FinishReason | None = None
        try:
            while reason is None:
                yield
                tokens, over = self._next(request_id)
                first_s = first_s or (time.monotonic() if tokens else 0.0)
                for token in tokens:
                    produced += 1
                    if token in self._eos_tokens and not job.ignore_eos:
                        reason = "stop"
                        break
                    _show(emit, stops.push(text.push(token)))
                    if stops.found:
                        reason = "stop"
                        break
                if reason is None and over:
                    # It ends by itself at an end token, which it may keep, or where it was told that there is enough.
                    reason = "length" if produced >= job.max_tokens else "stop"
        finally:
            del self._arrived[request_id]
            if not over:
                self._executor.cancel_request(request_id)
        _show(emit, stops.push(text.flush()) + stops.flush())
        now_s = time.monotonic()
        first_s = first_s or now_s
        timings = Timings(
            prompt_n=len(job.prompt),
            prompt_ms=(first_s - begun_s) * 1000,
            predicted_n=produced,
            predicted_ms=(now_s - first_s) * 1000,
        )
        emit(Finished(reason="stop" if stops.found else reason, timings=timings))

    def _next(self, request_id: int) -> tuple[list[int], bool]:
        """Return what has come for a request, and whether that was the last of it."""
        if not self._arrived[request_id]:
            for response in self._executor.await_responses(timeout=WAIT):
                # What comes for a request that was taken back is for nobody.
                self._arrived.get(response.request_id, []).append(response)
        responses, self._arrived[request_id] = self._arrived[request_id], []
        tokens: list[int] = []
        for response in responses:
            if response.has_error():
                raise ExecutorError(response.error_msg)
            tokens += response.result.output_token_ids[0]
        return tokens, bool(responses) and bool(responses[-1].result.is_final)

    def _request(self, job: Job) -> Any:  # noqa: ANN401 -- theirs, without types
        return self._bindings.Request(
            input_token_ids=list(job.prompt),
            max_new_tokens=job.max_tokens,
            streaming=True,
            # It knows one end token; the others are seen here.
            end_id=None if job.ignore_eos else min(self._eos_tokens, default=None),
            sampling_config=self._bindings.SamplingConfig(**sampling(job.sampling)),
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def sampling(how: Sampling) -> dict[str, Any]:
    """Say it in the executor's words: there a top-k of 1 is the most likely token always, and no seed is the same one always."""
    if how.temperature == 0:
        chosen: dict[str, Any] = {"top_k": 1}
    else:
        seed = secrets.randbits(63) if how.seed is None else how.seed % 2**63
        chosen = {"temperature": how.temperature, "top_k": how.top_k, "top_p": how.top_p, "random_seed": seed}
    penalties = {"presence_penalty": how.presence_penalty, "frequency_penalty": how.frequency_penalty}
    return {**chosen, **{name: value for name, value in penalties.items() if value}}


def _show(emit: Callable[[Piece | Finished], None], text: str) -> None:
    if text:
        emit(Piece(text=text))
