"""Builds as a person would look at them: a folder goes in, its steps run sealed, and what comes out is served and asked."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from controller import engines
from controller.config import Settings, load_settings
from controller.drivers.docker import DockerDriver
from controller.engines.base import Site
from controller.engines.builds import (
    OUT_MOUNT,
    SOURCE_MOUNT,
    Adapter,
    AdapterFormat,
    BuildRecipe,
    SourceDescription,
    Want,
    recipe,
)
from controller.spec import GROUP_GID, WORKER_UID, JobSpec, ModelSpec, Mount
from controller.store import workdirs
from controller.store.catalog import Scanner
from controller.store.weights import read_weights
from tests.fakeworker import client
from tests.fakeworker.place import Place
from tests.waiting import until

PROJECT = Path(__file__).parents[2]
MINI = PROJECT / "images/windlass-mini"
PATIENCE_S = 200.0
"""A start of torch on a busy machine."""
STEP_S = 500.0
"""A step of a build there: it gets a sixteenth of what others do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """
    How a build went.

    Attributes:
        recipe: what was planned.
        output: what came out; not there if a step failed.
        log: the last lines of the last step that ran.
        code: its exit code.

    """

    recipe: BuildRecipe
    output: Path
    log: str
    code: int | None

    @property
    def reason(self) -> str:
        """Why the last step failed, as it said itself."""
        return str(json.loads(self.log.splitlines()[-1])["reason"])

    @property
    def sha256(self) -> str:
        """Of what came out: the file, or all files of the folder by name."""
        files = sorted(self.output.rglob("*")) if self.output.is_dir() else [self.output]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()


class Workshop:
    """Runs recipes with the real driver, in the folders of one place."""

    def __init__(self, place: Place, driver: DockerDriver) -> None:
        self.place = place
        self.driver = driver
        self.settings = load_settings({**os.environ, "WINDLASS_HOME": str(place.root)})
        self._count = 0

    def folder(self, name: str, content: Path) -> Path:
        """Copy a folder or a file to where a source may lie."""
        made = self.place.root / "sources" / name
        made.mkdir(parents=True, exist_ok=True)
        if content.is_dir():
            shutil.copytree(content, made, dirs_exist_ok=True)
        else:
            shutil.copy(content, made / content.name)
        return made

    async def build(self, source: Path, want: Want, *, adapters: Sequence[tuple[str, AdapterFormat]] = ()) -> Built:
        """Plan a build and run its steps, one after the other, until one fails."""
        return await self.run(source, recipe(describe(source, adapters), want))

    async def run(self, source: Path, planned: BuildRecipe) -> Built:
        """Run the steps of a plan."""
        self._count += 1
        out = self.place.root / "out" / str(self._count)
        give_to_worker(out)
        log, code = "", None
        for number, step in enumerate(planned.steps):
            log, code = await self.job(
                step.argv,
                image=self.settings.engine(step.image).image,
                source=source,
                out=out,
                step=number,
                memory_bytes=step.memory_bytes,
                pids_limit=step.pids_limit,
                env=step.env,
            )
            if code:
                break
        return Built(recipe=planned, output=out / planned.output, log=log, code=code)

    async def job(self, argv: Sequence[str], *, image: str, source: Path, out: Path, **changes: Any) -> tuple[str, int | None]:  # noqa: ANN401
        """Run one command to its end; return the end of its log, and its exit code."""
        give_to_worker(out)
        mounts = (
            Mount(source=PurePosixPath(source), target=SOURCE_MOUNT, read_only=True),
            Mount(source=PurePosixPath(out), target=OUT_MOUNT, read_only=False),
        )
        wanted: dict[str, Any] = {"step": 0, "memory_bytes": 1 << 30, **changes}
        await self.driver.begin_job(JobSpec(build="one", image=image, argv=tuple(argv), mounts=mounts, **wanted))
        while (shown := (await self.driver.jobs())[0]).running:
            await self._ended()
        log = await self.driver.job_logs("one", tail=20)
        await self.driver.end_job("one")
        return log, shown.exit.code if shown.exit else None

    async def _ended(self) -> None:
        def ended() -> bool:
            rows = self.place.engine.containers(filters={"label": f"windlass.owner={self.place.owner}"})
            return not any("windlass.build" in row["Labels"] for row in rows)

        await until("the step ends", ended, deadline_s=STEP_S)

    async def serve(self, name: str, content: Path) -> ModelSpec:
        """Register a file or a folder as a model, and run its worker as the controller would."""
        self._register(name, content)
        catalog = Scanner(self.settings, now=lambda: time.time() + 3600).scan()
        model = next(found for found in catalog.models if found.name == name)
        spec = engines.find(model.engine).worker(model, self._site(self.settings, model.engine))
        spec = replace(spec, memory_bytes=max(spec.memory_bytes, 256 << 20))
        workdirs.prepare(spec)
        await self.driver.create(spec)
        await self.driver.start(model.name)
        await until(f"{name} answers", lambda: client.is_ready(Path(spec.socket)), deadline_s=PATIENCE_S)
        return model

    def _register(self, name: str, content: Path) -> None:
        target = self.place.root / "models" / name
        if content.is_dir():
            shutil.copytree(content, target)
        else:
            target.mkdir(parents=True)
            shutil.copy(content, target / content.name)
        for file in (target, *target.rglob("*")):
            file.chmod(0o755 if file.is_dir() else 0o644)

    def _site(self, settings: Settings, engine: str) -> Site:
        root = self.place.root
        image = settings.engine(engine).image
        return Site(image=image, run_root=PurePosixPath(root / "workers"), kv_root=PurePosixPath(root / "kv"), threads=2)

    def ask(self, name: str, path: str, body: object) -> Any:  # noqa: ANN401
        """Ask a worker, and return what it answers."""
        status, answer = client.ask(self.place.socket(name), "POST", path, body, timeout_s=PATIENCE_S)
        assert 200 == status, answer
        return answer

    def chat(self, name: str, question: str) -> str:
        """Ask a worker one question at temperature 0."""
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 64}
        return str(self.ask(name, "/v1/chat/completions", body)["choices"][0]["message"]["content"])


def describe(source: Path, adapters: Sequence[tuple[str, AdapterFormat]] = ()) -> SourceDescription:
    """Read a folder as the store does."""
    names = tuple(sorted(file.name for file in source.iterdir()))
    taken = {name for name, _ in adapters}
    weights = read_weights(source, tuple(name for name in names if name not in taken))
    return SourceDescription(
        header=weights.header,
        weights=weights.path,
        files=frozenset(names),
        adapters=tuple(
            Adapter(path=PurePosixPath(name), format=kind, weights_bytes=_size(source / name)) for name, kind in adapters
        ),
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))


def give_to_worker(folder: Path) -> None:
    """Make a folder that a step may write to."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, WORKER_UID, GROUP_GID)
    else:
        folder.chmod(0o777)
