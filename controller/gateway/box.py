"""
What the controller tells of the box, as Prometheus' text: the controller has no port of its own to be scraped at.

| name | labels | meaning |
|---|---|---|
| `windlass_memory_bytes` | `kind` | `total`, `available`, `floor`, `configured_budget`, `budget`, `committed`, `held` |
| `windlass_gpu_memory_bytes` | `gpu`, `kind` | each card's `total`, `configured_budget`, `budget`, `committed`, `held`, `free` |
| `windlass_disk_bytes` | `kind` | the disk that holds the models: `home_total`, `home_free` |
| `windlass_pressure_some_avg10` | | share of the last ten seconds in which something waited for memory, in percent |
| `windlass_pressure_full_avg10` | | the same for everything waiting at once |
| `windlass_guard_level` | | 0 for calm, 1 for short of memory, 2 for less than the floor |
| `windlass_guard_workers_total` | `how` | workers that the guard stopped when idle, and ended when busy |
| `windlass_celsius` | `zone` | temperature |
| `windlass_watts` | `rail` | power |
| `windlass_pace` | | how fast the box is allowed to be, as a share of full speed |
| `windlass_worker_memory_bytes` | `model`, `status` | what a worker's container is charged with |
| `windlass_worker_leases` | `model` | callers that a worker serves |
| `windlass_queue_length` | | callers that wait |
| `windlass_queue_longest_wait_s` | | the longest of their waits so far |
| `windlass_health` | | 0 for ok, 1 for degraded, 2 for failing |
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

_STATES: Final = {"ok": 0, "degraded": 1, "failing": 2}
_LEVELS: Final = {"calm": 0, "short": 1, "critical": 2}


class Told:
    """The status of one moment, as something that Prometheus' library can write. A key that is missing is left out."""

    def __init__(self, status: Mapping[str, object]) -> None:
        """Keep it."""
        self._status = status

    def text(self) -> bytes:
        """Return it in Prometheus' text format."""
        return generate_latest(self)  # it asks for nothing but `collect`

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges."""
        memory, disk = _table(self._status, "memory"), _table(self._status, "disk")
        yield _gauge("windlass_memory_bytes", "Memory", ("kind",), _sizes(memory))
        yield _gauge("windlass_gpu_memory_bytes", "Memory of graphics cards", ("gpu", "kind"), _cards(self._status))
        yield _gauge("windlass_disk_bytes", "Disk", ("kind",), _sizes(disk))
        yield _gauge("windlass_pressure_some_avg10", "Memory pressure", (), [((), memory.get("pressure_some_avg10"))])
        yield _gauge("windlass_pressure_full_avg10", "Total pressure", (), [((), memory.get("pressure_full_avg10"))])
        yield from self._guard()
        yield _gauge(
            "windlass_celsius", "Temperature", ("zone",), _named(_rows(_table(self._status, "thermal"), "zones"), "celsius")
        )
        yield _gauge("windlass_watts", "Power", ("rail",), _named(_rows(_table(self._status, "power"), "rails"), "watts"))
        yield _gauge("windlass_pace", "Share of full speed", (), [((), _table(self._status, "pace").get("factor"))])
        yield from self._workers()
        queue = _rows(self._status, "queue")
        waits = [wait for row in queue if isinstance(wait := row.get("waiting_s"), int | float)]
        yield _gauge("windlass_queue_length", "Callers that wait", (), [((), len(queue))])
        yield _gauge("windlass_queue_longest_wait_s", "Longest wait so far", (), [((), max(waits, default=0.0))])
        yield _gauge("windlass_health", "0 ok, 1 degraded, 2 failing", (), [((), _STATES.get(str(self._status.get("state"))))])

    def _guard(self) -> Iterable[Metric]:
        guard = _table(self._status, "guard")
        yield _gauge("windlass_guard_level", "0 calm, 1 short, 2 critical", (), [((), _LEVELS.get(str(guard.get("level"))))])
        workers = CounterMetricFamily("windlass_guard_workers", "Workers stopped for want of memory", labels=("how",))
        for how in ("stopped", "ended"):
            if isinstance(count := guard.get(how), int):
                workers.add_metric((how,), count)
        yield workers

    def _workers(self) -> Iterable[GaugeMetricFamily]:
        rows = _rows(self._status, "workers")
        charged = [((str(row.get("model")), str(row.get("status"))), row.get("memory_bytes")) for row in rows]
        leases = [((str(row.get("model")),), row.get("leases")) for row in rows]
        yield _gauge("windlass_worker_memory_bytes", "Charged to the worker", ("model", "status"), charged)
        yield _gauge("windlass_worker_leases", "Callers served", ("model",), leases)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], object]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for names, value in values:
        if isinstance(value, int | float):
            family.add_metric(names, value)
    return family


def _sizes(table: Mapping[str, object]) -> list[tuple[tuple[str, ...], object]]:
    return [((name.removesuffix("_bytes"),), value) for name, value in table.items() if name.endswith("_bytes")]


def _cards(status: Mapping[str, object]) -> list[tuple[tuple[str, ...], object]]:
    return [((str(row.get("index")), *kind), value) for row in _rows(status, "cards") for kind, value in _sizes(row)]


def _named(rows: Iterable[Mapping[str, object]], key: str) -> list[tuple[tuple[str, ...], object]]:
    return [((str(row.get("name")),), row.get(key)) for row in rows]


def _table(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _rows(value: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    found = value.get(key)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
