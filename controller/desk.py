"""
What operators may ask of the controller, verb by verb: the table behind `Call`.

Arguments come from outside, so each is checked here; results are plain JSON values.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controller import __version__, card_reports, reports
from controller.build_desk import BuildDesk
from controller.config import Settings
from controller.device import Device
from controller.errors import Reason, RefusedError, StoreError
from controller.guard import Level
from controller.pool import Pool
from controller.probes.host import read_disk
from controller.probes.memory import read_memory
from controller.probes.thermal import read_thermal
from controller.router import unknown_model
from controller.scheduler import Notice, Waiter
from controller.spec import ModelName, ModelSpec
from controller.store.catalog import Problem
from controller.store.conversations import Kept
from controller.store.database import Database
from controller.store.keys import ApiKey, Keys, Scope
from controller.units import format_bytes
from controller.yardstick import Yardstick

DEFAULT_WINDOW_S: Final = 3600.0
DEFAULT_TAIL: Final = 100
MAX_TAIL: Final = 10_000
MAX_NUMBER: Final = 1e12
"""More than any window or count can mean; it keeps infinity and what no clock can hold out of the arithmetic."""

Arguments = dict[str, Any]


class Desk:
    """Answers the verbs. `keys_changed` is called when gateways must learn of new or revoked keys."""

    def __init__(
        self,
        *,
        pool: Pool,
        settings: Settings,
        database: Database,
        keys: Keys,
        keys_changed: Callable[[], Awaitable[None]],
        builds: BuildDesk,
        device: Device,
        yardstick: Yardstick,
    ) -> None:
        """Know whom to ask."""
        self.problems: tuple[Problem, ...] = ()
        self._pool = pool
        self._settings = settings
        self._database = database
        self._keys = keys
        self._keys_changed = keys_changed
        self._builds = builds
        self._device = device
        self._yardstick = yardstick
        self._began_s = time.monotonic()

    @property
    def verbs(self) -> Mapping[str, Callable[[Arguments], Awaitable[Any]]]:
        """Return the table."""
        return {
            "health": self.health,
            "status": self.status,
            "models": self.models,
            "performance": self.performance,
            "plan": self.plan,
            "load": self.load,
            "unload": self.unload,
            "optimize": self.optimize,
            "logs": self.logs,
            **self._builds.verbs,
            "conversations.list": self.list_conversations,
            "conversations.delete": self.delete_conversation,
            "conversations.clear": self.clear_conversations,
            "keys.list": self.list_keys,
            "keys.create": self.create_key,
            "keys.revoke": self.revoke_key,
        }

    async def health(self, _: Arguments) -> dict[str, Any]:
        """Say how well all of it is, and nothing that costs more than a look at the queue."""
        state, reasons = self._health(await asyncio.to_thread(self._read))
        return {"state": state, "reasons": reasons}

    async def status(self, _: Arguments) -> dict[str, Any]:
        """Describe the box, the workers, the queue and how well all of it is."""
        pool, now = self._pool, self._pool.clock()
        readings = await asyncio.to_thread(self._read)
        state, reasons = self._health(readings)
        return {
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "state": state,
            "reasons": reasons,
            "memory": {
                "total_bytes": readings.memory.total_bytes,
                "available_bytes": readings.memory.available_bytes,
                "floor_bytes": pool.lookout.guard.floor_bytes,
                "configured_budget_bytes": pool.budget.total_bytes,
                "budget_bytes": pool.budget_bytes,
                "committed_bytes": pool.scheduler.committed_bytes,
                "held_bytes": sum(w.held_bytes for w in pool.workers.values()),
                "pressure_some_avg10": readings.memory.pressure_some_avg10,
                "pressure_full_avg10": readings.memory.pressure_full_avg10,
            },
            "guard": {
                "level": pool.lookout.guard.verdict.level.value,
                "reason": pool.lookout.guard.verdict.reason,
                "stopped": pool.lookout.stopped,
                "ended": pool.lookout.ended,
            },
            "thermal": {"zones": [{"name": z.name, "celsius": z.celsius} for z in readings.thermal.zones]},
            "power": {"rails": [{"name": r.name, "watts": r.watts} for r in readings.thermal.rails]},
            "pace": reports.pace_row(pool.pacing.pace, pool.pacing.reading),
            "device": reports.device_row(self._device),
            "disk": reports.disk_row(readings.disk, self._yardstick.disk),
            "workers": [
                reports.worker_row(w, leases=len(pool.scheduler.record(m).leases), usage=pool.lookout.usage(m), now=now)
                for m, w in sorted(pool.workers.items())
            ],
            "queue": [reports.queue_row(waiter, notice, now=now) for waiter, notice in self._queue(now)],
            "transitions": [
                {"model": t.model, "action": t.action, "seconds": round(t.seconds, 2)} for t in self._transitions(now)
            ],
            "cards": card_reports.card_rows(pool.host.device, pool.budget, pool.scheduler.committed, pool.workers),
            "leases": len(pool.scheduler.leases),
            "conversations": pool.talks.figures(),
        }

    async def models(self, _: Arguments) -> dict[str, Any]:
        """Describe every registered model, and every folder that is none."""
        pool, now = self._pool, self._pool.clock()
        rows = [
            reports.model_row(
                spec,
                worker=pool.workers.get(next(iter(pool.scheduler.ready_workers(spec.name)), spec.name)),
                ready=len(pool.scheduler.ready_workers(spec.name)),
                record=pool.scheduler.record(spec.name),
                measured=pool.meter.ledger.find(pool.host.ledger_key(spec)),
                drift=pool.lookout.drift(spec.name),
                pace=pool.pacing.pace.factor,
                now=now,
            )
            for spec in pool.models.values()
        ]
        rows = self._builds.described(rows, now)
        return {"models": rows, "problems": [{"folder": p.folder, "text": p.text} for p in self.problems]}

    async def performance(self, arguments: Arguments) -> dict[str, Any]:
        """Describe what was served and swapped lately."""
        window_s = _number(arguments, "window_s", DEFAULT_WINDOW_S)
        return self._pool.meter.journal.performance(self._pool.clock(), window_s=window_s)

    async def plan(self, arguments: Arguments) -> dict[str, Any]:
        """Say what loading a model would do to the others."""
        pool, spec = self._pool, self._model(arguments)
        now = pool.clock()
        resident = self._pool.is_resident(spec.name)
        held = {m: w.held_bytes for m, w in pool.workers.items() if w.held_bytes}
        choice = pool.scheduler.preview(spec.name, now)
        row = reports.plan_row(
            spec,
            choice.plan,
            resident=resident,
            held=held,
            values={m: pool.scheduler.value(m, now) for m in held},
            budget_bytes=pool.budget_bytes,
            load_s=0.0 if resident else pool.scheduler.record(spec.name).load_s,
        )
        return {**row, "gpus": card_reports.place_rows(choice.charge.cards, pool.budget, pool.workers)}

    async def load(self, arguments: Arguments) -> dict[str, Any]:
        """Load a model, and wait for it unless told not to."""
        spec, wait = self._model(arguments), _flag(arguments, "wait", default=True)
        try:
            if not wait:
                self._pool.begin_load(spec.name)
            seconds = await self._pool.load(spec.name) if wait else None
        except RefusedError as exc:
            raise self._pool.explain(exc, spec.name) from exc
        if seconds is None:
            return {"model": spec.name, "state": "resident" if self._pool.is_resident(spec.name) else "loading", "seconds": 0.0}
        return {
            "model": spec.name,
            "state": "resident",
            "seconds": round(seconds, 3),
            "bytes": spec.footprint.total_bytes,
        }

    async def unload(self, arguments: Arguments) -> dict[str, Any]:
        """Unload a model and wait until its memory is back."""
        spec, force = self._model(arguments), _flag(arguments, "force", default=False)
        freed_bytes = self._pool.held_bytes(spec.name)
        seconds = await self._pool.unload(spec.name, force=force)
        return {"model": spec.name, "state": "stopped", "seconds": round(seconds, 3), "bytes": freed_bytes}

    async def optimize(self, _: Arguments) -> dict[str, Any]:
        """Unload what is idle and not pinned, compact the state database, and say what that freed."""
        pool = self._pool
        before = await asyncio.to_thread(read_memory)
        done: list[str] = []
        for model in sorted(pool.scheduler.desired):
            spec = pool.models.get(model)
            if pool.scheduler.record(model).leases or spec is None or spec.pinned or pool.scheduler.has_callers(model):
                continue
            seconds = await pool.unload(model, force=False)
            done.append(f"unloaded {model}, which was idle, in {seconds:.2f} s")
        await asyncio.to_thread(self._database.compact)
        done.append("compacted the state database")
        after = await asyncio.to_thread(read_memory)
        return {
            "done": done,
            "freed_bytes": max(0, after.available_bytes - before.available_bytes),
            "before": {"available_bytes": before.available_bytes},
            "after": {"available_bytes": after.available_bytes},
        }

    async def logs(self, arguments: Arguments) -> dict[str, Any]:
        """Return the last lines a worker wrote."""
        spec = self._model(arguments)
        tail = int(_number(arguments, "tail", DEFAULT_TAIL))
        if spec.name not in self._pool.workers:
            return {"model": spec.name, "lines": []}
        text = await self._pool.driver.logs(spec.name, tail=min(max(tail, 1), MAX_TAIL))
        return {"model": spec.name, "lines": text.splitlines()}

    async def list_conversations(self, arguments: Arguments) -> dict[str, Any]:
        """List an owner's conversations on the disk."""
        return {"conversations": [_conversation_row(kept) for kept in self._pool.talks.of_owner(_text(arguments, "owner"))]}

    async def delete_conversation(self, arguments: Arguments) -> dict[str, Any]:
        """Delete one of an owner's conversations, called by its name or by the id that the list shows."""
        owner, name, talk = (_text(arguments, key) for key in ("owner", "name", "id"))
        deleted, erased = await self._pool.talks.forget(owner=owner, name=name, talk=talk)
        return {"deleted": deleted, "erased": erased}

    async def clear_conversations(self, _: Arguments) -> dict[str, Any]:
        """Delete everybody's conversations."""
        deleted, erased = await self._pool.talks.forget()
        return {"deleted": deleted, "erased": erased}

    async def list_keys(self, _: Arguments) -> dict[str, Any]:
        """List the API keys, without their secrets."""
        return {"keys": [_key_row(key) for key in await asyncio.to_thread(self._keys.all)]}

    async def create_key(self, arguments: Arguments) -> dict[str, Any]:
        """Make an API key; its secret is in this answer and nowhere else."""
        try:
            scopes = [Scope(scope) for scope in arguments.get("scopes") or [Scope.INFERENCE]]
        except (ValueError, TypeError):
            text = f"wanted scopes among {', '.join(Scope)}, got {arguments.get('scopes')!r}"
            raise RefusedError(Reason.MALFORMED, text) from None
        limit = arguments.get("rate_limit_per_min")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit < MAX_NUMBER):
            raise RefusedError(Reason.MALFORMED, f"wanted rate_limit_per_min as a whole number above 0, got {limit!r}")
        name = str(arguments.get("name") or "")
        made = await asyncio.to_thread(lambda: self._keys.create(name=name, scopes=scopes, rate_limit_per_min=limit))
        await self._keys_changed()
        return {**_key_row(made.key), "secret": made.secret}

    async def revoke_key(self, arguments: Arguments) -> dict[str, Any]:
        """Revoke an API key; it is refused from now on."""
        key_id = arguments.get("id")
        if not isinstance(key_id, str):
            raise RefusedError(Reason.MALFORMED, f"wanted the id of a key, got {key_id!r}")
        try:
            row = _key_row(await asyncio.to_thread(self._keys.revoke, key_id))
            await self._pool.talks.forget(owner=key_id)  # nobody can ask for them any more
        except StoreError as exc:
            raise RefusedError(Reason.MALFORMED, str(exc)) from exc
        finally:
            await self._keys_changed()
        return row

    def _read(self) -> reports.Readings:
        return reports.Readings(memory=read_memory(), thermal=read_thermal(), disk=read_disk(self._settings.home))

    def _health(self, readings: reports.Readings) -> tuple[str, list[str]]:
        pool, now = self._pool, self._pool.clock()
        return reports.health(
            queue=pool.scheduler.queue(),
            transitions=self._transitions(now),
            engine_away=pool.engine_away,
            problems=self._complaints(readings),
            resting=[m for m in pool.models if self._rests(m, now)],
            now=now,
        )

    def _transitions(self, now: float) -> list[reports.Transition]:
        acting = self._pool.fleet.acting.items()
        return [reports.Transition(model=m, action=type(a.action).__name__.lower(), seconds=now - a.since_s) for m, a in acting]

    def _queue(self, now: float) -> list[tuple[Waiter, Notice]]:
        scheduler = self._pool.scheduler
        return [(w, scheduler.notice(w, position, now)) for position, w in enumerate(scheduler.queue(), start=1)]

    def _complaints(self, readings: reports.Readings) -> list[str]:
        folders = [f"the folder {p.folder} is not served: {p.text}" for p in self.problems]
        kept = [problem for problem in (self._database.problem, self._pool.meter.problem) if problem]
        pinned_bytes = sum(spec.footprint.total_bytes for spec in self._pool.models.values() if spec.pinned)
        if pinned_bytes > self._pool.budget.total_bytes:
            needed = f"{format_bytes(pinned_bytes)} of {format_bytes(self._pool.budget.total_bytes)}"
            kept.append(f"the pinned models need more than the budget ({needed}), and not all of them are loaded; pin fewer")
        verdict = self._pool.lookout.guard.verdict
        if verdict.level is not Level.CALM:
            kept.append(verdict.reason)
        kept += self._pool.memory_stuck
        kept += self._pool.pacing.pace.alarms
        return [*folders, *kept, *self._builds.complaints, *reports.disk_complaints(readings.disk, self._settings.home)]

    def _rests(self, model: ModelName, now: float) -> bool:
        record = self._pool.scheduler.record(model)
        return record.resting and now < record.retry_at_s

    def _model(self, arguments: Arguments) -> ModelSpec:
        name = arguments.get("model")
        if not isinstance(name, str):
            raise RefusedError(Reason.MALFORMED, f"wanted the name of a model, got {name!r}")
        spec = self._pool.models.get(ModelName(name))
        if spec is None:
            raise self._pool.explain(unknown_model(name, self._pool.models), name)
        return spec


def _number(arguments: Arguments, key: str, default: float) -> float:
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_NUMBER:
        raise RefusedError(Reason.MALFORMED, f"wanted {key} as a number above 0, got {value!r}")
    return float(value)


def _flag(arguments: Arguments, key: str, *, default: bool) -> bool:
    value = arguments.get(key, default)
    if not isinstance(value, bool):
        raise RefusedError(Reason.MALFORMED, f"wanted {key} as true or false, got {value!r}")
    return value


def _text(arguments: Arguments, key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str):
        raise RefusedError(Reason.MALFORMED, f"wanted {key} as text, got {value!r}")
    return value


def _conversation_row(kept: Kept) -> dict[str, Any]:
    return {
        "id": kept.talk,
        "model": kept.model,
        "tokens": kept.tokens,
        "size_bytes": kept.size_bytes,
        "saved_at": datetime.fromtimestamp(kept.saved_s, UTC).isoformat(timespec="seconds"),
        "used_at": datetime.fromtimestamp(kept.used_s, UTC).isoformat(timespec="seconds"),
    }


def _key_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate_limit_per_min": key.rate_limit_per_min,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
