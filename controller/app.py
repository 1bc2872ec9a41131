"""The composition root of the controller: reads nothing but the settings, and puts every part together."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import uvloop

from controller import __version__, engines
from controller.build_desk import BuildDesk
from controller.cards import for_models
from controller.charges import Cards
from controller.config import Settings
from controller.desk import Desk
from controller.device import Device
from controller.drivers.base import Driver
from controller.drivers.docker import DockerDriver
from controller.duties import kept_up, survived
from controller.engines.base import Site
from controller.errors import DeviceChangedError, StoreError
from controller.fallbacks import Fallbacks
from controller.forge.forge import Forge
from controller.host import Host
from controller.identity import LOOK_S, find_out
from controller.meter import Meter
from controller.pool import Pool
from controller.probes.gpu_memory import read_gpu_memory
from controller.probes.host import read_cpu_count
from controller.probes.memory import read_memory
from controller.probes.power import read_power
from controller.probes.system import LocalSystem, System
from controller.scheduler import Rules
from controller.server import Server
from controller.spec import ModelSpec
from controller.stock import Stock
from controller.store.catalog import Catalog, Scanner
from controller.store.conversations import Conversations, Limits
from controller.store.database import Database, open_database
from controller.store.engine_files import EngineFiles
from controller.store.findings import Findings
from controller.store.keys import ApiKey, Keys
from controller.store.ledger import Ledger
from controller.store.setbacks import Setbacks
from controller.store.watcher import Watcher
from controller.supervisor import NOBODY, Supervisor, find_supervisor
from controller.tenancy import Tenancy
from controller.tenure import tenure
from controller.wire import Catalog as CatalogMessage
from controller.wire import KeyCard, ModelCard
from controller.yardstick import Yardstick

log: Final = structlog.get_logger()

SOCKET_NAME: Final = "controller.sock"
LOCK_NAME: Final = "controller.lock"
WAITS: Final = "waits for the controller before it to end"
"""A box's `switch` looks for a status that begins with `waits`, and then ends the controller before."""
FOLDERS: Final = {"models": 0o755, "engines": 0o755, "kv": 0o711}
"""The folders of the home and their modes; whose conversations are kept is nobody's business, so `kv` cannot be listed."""

HERE: Final = LocalSystem()


def run(settings: Settings) -> None:
    """Run the controller until it is told to stop; the workers stay as they are, and the next start adopts them."""
    uvloop.run(_run_until_signalled(settings))


async def _run_until_signalled(settings: Settings) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    # What came while the modules were read was held back by the command line, and is heard now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    supervisor = find_supervisor(os.environ)
    try:
        # Nothing is touched before: the one that goes serves until this one has come as far as it can beside it.
        async with tenure(Path(settings.run) / LOCK_NAME, waits=lambda: supervisor.says(WAITS)):
            await live(settings, lambda: DockerDriver(settings.owner), supervisor=supervisor)
    except asyncio.CancelledError:
        supervisor.ending("stopped; the workers stay")
        log.info("controller.stopped")


async def live(
    settings: Settings,
    driver: Callable[[], Driver],
    system: System = HERE,
    *,
    look_s: float = LOOK_S,
    supervisor: Supervisor = NOBODY,
) -> None:
    """Serve until cancelled, and begin anew when the box has changed: a restart is the same as a start."""
    while True:
        try:
            async with supervisor.beginning():
                await serve(settings, driver(), system, look_s=look_s, supervisor=supervisor)
        except* DeviceChangedError as group:
            log.warning("controller.begins_anew", reason=str(group.exceptions[0]))


async def serve(
    settings: Settings,
    driver: Driver,
    system: System = HERE,
    *,
    look_s: float = LOOK_S,
    supervisor: Supervisor = NOBODY,
) -> None:
    """
    Put the parts together and keep them going until cancelled.

    Raises:
        ExceptionGroup: with a `DeviceChangedError`, when the box is not any more what it was.

    """
    home = Path(settings.home)
    _make_folders(home)
    database = await asyncio.to_thread(open_database, home / "state.db")
    ledger, keys, setbacks = Ledger(database), Keys(database), Setbacks(database, wall=time.time)
    findings, images = Findings(database), {name: settings.engine(name).image for name in engines.ENGINES}
    identity = await find_out(system, driver, look_s=look_s, use_gpu=settings.use_gpu)
    await identity.try_charging(images=tuple(images.values()), findings=findings, wall=time.time)
    yardstick = await asyncio.to_thread(Yardstick, system, settings.home, findings, wall=time.time)
    host = _host(settings, identity.device)
    kept = await asyncio.to_thread(_conversations, settings, database)
    meter = Meter(ledger=ledger, host=host, clock=time.monotonic)
    pool = Pool(
        driver=driver,
        rules=_rules(settings, host.cards),
        host=host,
        meter=meter,
        clock=time.monotonic,
        floor_bytes=settings.memory.floor_bytes(total_bytes=read_memory().total_bytes),
        read_gpu_memory=partial(read_gpu_memory, system, identity.device),
        read_power=partial(read_power, system),
        conversations=kept,
    )
    cards = _Cards(keys)
    files, stock = EngineFiles(home / "engines", database), Stock(driver, images)
    scanner = Scanner(
        settings,
        ledger,
        shelf=files,
        budget_bytes=pool.budget.total_bytes,
        memory_bytes=read_memory().total_bytes,
        device=identity.device,
        setbacks=setbacks,
        has_image=stock.has,
    )
    watcher = Watcher(scanner)
    meter.on_measured(watcher.poke)
    fallbacks = Fallbacks(setbacks, changed=watcher.poke)
    tenancy = Tenancy(pool)
    forge = Forge(
        driver=driver,
        files=files,
        settings=settings.builds,
        images=lambda engine: settings.engine(engine).image,
        memory=tenancy,
        models=tenancy,
        changed=watcher.poke,
        clock=time.monotonic,
        device=identity.device,
    )
    pool.why_absent, pool.gave_up, forge.gave_up = forge.absent, fallbacks.load_failed, fallbacks.build_failed
    pool.turned = supervisor.alive

    def take(catalog: Catalog) -> bool:
        fallbacks.take(catalog)
        return _take(catalog, pool, desk, cards, forge)

    async def keys_changed() -> None:
        await cards.read_keys()
        server.announce()

    bench = BuildDesk(forge=forge, scanner=scanner, models=lambda: pool.models, fallbacks=fallbacks)
    desk = Desk(
        pool=pool,
        settings=settings,
        database=database,
        keys=keys,
        keys_changed=keys_changed,
        builds=bench,
        device=identity.device,
        yardstick=yardstick,
    )
    server = Server(pool=pool, verbs=desk.verbs, instance=uuid.uuid4().hex, catalog=cards.message)
    try:
        log.info("controller.started", version=__version__, home=str(home), budget_bytes=pool.budget_bytes)
        await cards.read_keys()
        await stock.look()
        async with asyncio.TaskGroup() as tasks:
            catalogs = watcher.catalogs()
            take(await anext(catalogs))
            tasks.create_task(pool.run())
            await pool.adopted()
            tasks.create_task(forge.run())
            tasks.create_task(identity.watch())
            tasks.create_task(survived(yardstick.run(lambda: _weights(pool), idle=lambda: _is_idle(pool, forge))))
            tasks.create_task(kept_up(partial(stock.keep_looking, watcher.poke)))
            async with server.listening(Path(settings.run) / SOCKET_NAME):
                supervisor.ready(f"serves {len(pool.models)} models")
                await _follow(catalogs, take, server)
    finally:
        await asyncio.shield(_close(driver, ledger, database))


async def _follow(catalogs: AsyncIterator[Catalog], take: Callable[[Catalog], bool], server: Server) -> None:
    async for catalog in catalogs:
        if take(catalog):
            server.announce()


def _make_folders(home: Path) -> None:
    for folder, mode in FOLDERS.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder).chmod(mode)


async def _close(driver: Driver, ledger: Ledger, database: Database) -> None:
    try:
        await asyncio.to_thread(ledger.flush)
    except StoreError as exc:  # a full disk costs what was learnt lately, not an orderly end
        log.warning("ledger.not_written", error=str(exc))
    await driver.close()
    await asyncio.to_thread(database.close)


class _Cards:
    """What gateways are told of models and keys, made when it changes and not when it is asked for."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._models: tuple[ModelCard, ...] = ()
        self._key_cards: tuple[KeyCard, ...] = ()

    async def read_keys(self) -> None:
        self._key_cards = tuple(_key_card(key) for key in await asyncio.to_thread(self._keys.active))

    def set_models(self, models: tuple[ModelSpec, ...]) -> bool:
        """Take the catalog; false if gateways would see nothing new in it."""
        before, self._models = self._models, tuple(_model_card(spec) for spec in models)
        return before != self._models

    def message(self) -> CatalogMessage:
        return CatalogMessage(models=self._models, keys=self._key_cards)


def _take(catalog: Catalog, pool: Pool, desk: Desk, cards: _Cards, forge: Forge) -> bool:
    """Take a catalog; false if gateways need not hear of it: a measurement has changed a footprint, say."""
    pool.register({spec.name: spec for spec in catalog.models})
    forge.take(catalog.orders)
    desk.problems = catalog.problems
    log.info("catalog.read", models=len(catalog.models), problems=len(catalog.problems))
    return cards.set_models((*catalog.models, *(order.spec for order in forge.unbuilt())))


def _weights(pool: Pool) -> Iterable[Path]:
    return (Path(spec.folder) / spec.weights for spec in pool.models.values())


def _is_idle(pool: Pool, forge: Forge) -> bool:
    return not (pool.scheduler.leases or pool.scheduler.queue() or pool.fleet.acting or forge.is_busy)


def _rules(settings: Settings, cards: Cards) -> Rules:
    wanted = settings.scheduler
    return Rules(
        budget_bytes=budget_bytes(settings, total_bytes=read_memory().total_bytes),
        cards=cards,
        queue_limit=wanted.queue_limit,
        quantum_s=wanted.quantum_s,
        request_limit_s=wanted.request_limit_s,
        min_residency_s=wanted.min_residency_s,
        idle_unload_s=wanted.idle_unload_s,
        max_failures=wanted.max_failures,
        backoff_s=wanted.backoff_s,
    )


def _conversations(settings: Settings, database: Database) -> Conversations | None:
    """Open what is kept of conversations; without it, they are computed again after a swap."""
    wanted = settings.conversations
    limits = Limits(budget_bytes=wanted.disk_budget, file_bytes=wanted.max_size, age_s=wanted.max_age_s)
    try:
        kept = Conversations(database, Path(settings.home) / "kv", limits=limits, wall=time.time)
    except StoreError as exc:
        log.warning("conversations.not_kept", error=str(exc))
        return None
    if not wanted.enabled:
        kept.forget()
    return kept if wanted.enabled else None


def budget_bytes(settings: Settings, *, total_bytes: int) -> int:
    """Return the memory for models: what is configured, else all but the reserve."""
    if settings.memory.budget is not None:
        return settings.memory.budget
    return max(0, total_bytes - settings.memory.reserve)


def card_budgets(settings: Settings, device: Device) -> Cards:
    """Return the memory for models on each card that has some of its own: what is configured, else all but the reserve."""
    return for_models(device, budget_bytes=settings.gpu.budget, reserve_bytes=settings.gpu.reserve)


def _host(settings: Settings, device: Device) -> Host:
    sites = {}
    for name in engines.ENGINES:
        engine = settings.engine(name)
        sites[name] = Site(
            image=engine.image,
            run_root=settings.run / "workers",
            kv_root=settings.home / "kv",
            threads=engine.threads or read_cpu_count(),
            options=engine.options,
            device=device,
        )
    return Host(sites=sites, device=device, cards=card_budgets(settings, device))


def _model_card(spec: ModelSpec) -> ModelCard:
    return ModelCard(
        name=spec.name,
        engine=spec.engine,
        tier=spec.tier.value,
        tags=tuple(sorted(spec.tags)),
        api_paths=tuple(sorted(path.value for path in spec.api_paths)),
        context_tokens=spec.context_tokens,
        parameters=spec.parameters,
        created_s=_changed_s(spec),
        chat=spec.chat,
        tools=spec.tools,
    )


def _changed_s(spec: ModelSpec) -> int:
    """Return when the model's weights were last changed, in seconds since 1970; 0 if they left this moment."""
    try:
        return int((Path(spec.folder) / spec.weights).stat().st_mtime)
    except OSError:
        return 0


def _key_card(key: ApiKey) -> KeyCard:
    return KeyCard(
        id=key.id,
        digest=key.digest,
        scopes=tuple(sorted(key.scopes)),
        rate_limit_per_min=key.rate_limit_per_min,
    )
