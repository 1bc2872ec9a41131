"""
What the gateway counts, for Prometheus. `GET /metrics` shows these and whatever the controller counts.

| name | kind | labels | meaning |
|---|---|---|---|
| `windlass_gateway_requests_total` | counter | `path`, `status` | answers by path and status; 499 is a caller that hung up |
| `windlass_gateway_request_seconds` | histogram | `path` | from the request's head to the last byte of its answer |
| `windlass_gateway_wait_seconds` | histogram | `model` | from asking for a lease to its grant |
| `windlass_gateway_first_token_seconds` | histogram | `model` | from the grant to the first byte of the worker's answer |
| `windlass_gateway_tokens_total` | counter | `model`, `kind` | tokens of prompts and of completions, as the engine counted them |
| `windlass_gateway_retries_total` | counter | `model` | requests sent again because the worker was lost before it answered |
| `windlass_gateway_worker_failures_total` | counter | `model`, `cause` | workers lost in the middle of a request |
| `windlass_gateway_in_flight` | gauge | | requests that are being answered |
| `windlass_gateway_leases` | gauge | | leases held or waited for |
| `windlass_gateway_controller_up` | gauge | | 1 while the controller is there |
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCIES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
HUNG_UP: Final = 499
"""Counted for a caller that left; nobody is told."""


class Metrics:
    """One gateway's counters, in a registry of their own, with the label lookups remembered."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        prefix = "windlass_gateway_"
        self._requests = Counter(f"{prefix}requests", "Answers", ("path", "status"), registry=self.registry)
        self._request_s = Histogram(
            f"{prefix}request_seconds", "Head to last byte", ("path",), registry=self.registry, buckets=LATENCIES_S
        )
        self._wait_s = Histogram(
            f"{prefix}wait_seconds", "Asking to grant", ("model",), registry=self.registry, buckets=LATENCIES_S
        )
        self._first_token_s = Histogram(
            f"{prefix}first_token_seconds", "Grant to first byte", ("model",), registry=self.registry, buckets=LATENCIES_S
        )
        self._tokens = Counter(f"{prefix}tokens", "Tokens", ("model", "kind"), registry=self.registry)
        self._retries = Counter(f"{prefix}retries", "Requests sent again", ("model",), registry=self.registry)
        self._failures = Counter(f"{prefix}worker_failures", "Workers lost", ("model", "cause"), registry=self.registry)
        self.in_flight = Gauge(f"{prefix}in_flight", "Requests being answered", registry=self.registry)
        self.leases = Gauge(f"{prefix}leases", "Leases held or waited for", registry=self.registry)
        self.controller_up = Gauge(f"{prefix}controller_up", "The controller is there", registry=self.registry)
        self._by_answer: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._by_model: dict[str, tuple[Histogram, Histogram, Counter, Counter]] = {}

    def answered(self, path: str, status: int, *, took_s: float) -> None:
        """Count one answer."""
        found = self._by_answer.get((path, status))
        if found is None:
            found = self._by_answer[path, status] = (self._requests.labels(path, str(status)), self._request_s.labels(path))
        found[0].inc()
        found[1].observe(took_s)

    def served(
        self, model: str, *, waited_s: float, first_token_s: float | None, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Count one use of a worker."""
        found = self._by_model.get(model)
        if found is None:
            found = self._by_model[model] = (
                self._wait_s.labels(model),
                self._first_token_s.labels(model),
                self._tokens.labels(model, "prompt"),
                self._tokens.labels(model, "completion"),
            )
        found[0].observe(waited_s)
        if first_token_s is not None:
            found[1].observe(first_token_s)
        found[2].inc(prompt_tokens)
        found[3].inc(completion_tokens)

    def retried(self, model: str) -> None:
        """Count a request sent again."""
        self._retries.labels(model).inc()

    def worker_lost(self, model: str, cause: str) -> None:
        """Count a worker lost in the middle of a request."""
        self._failures.labels(model, cause or "unknown").inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
