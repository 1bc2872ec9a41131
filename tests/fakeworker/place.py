"""A corner of the real engine for one test: an owner of its own, directories on the host, and everything gone afterwards."""

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import docker
import docker.errors

from controller.spec import GROUP_GID, LABEL_OWNER, WORKER_UID, ModelName, Mount, WorkerSpec
from controller.units import MIB
from tests.fakeworker import client
from tests.waiting import until


class Place:
    """
    Where one test keeps its workers.

    Attributes:
        engine: the SDK's client, for what a person would do by hand.
        owner: the label of everything here.
        image: the fake worker's image.
        root: the directory on the host; short, since a socket's path has to fit into 108 bytes.

    """

    def __init__(self, engine: docker.APIClient, *, owner: str, image: str) -> None:
        self.engine = engine
        self.owner = owner
        self.image = image
        self.root = Path(tempfile.mkdtemp(prefix=f"{owner}-"))
        self.root.chmod(0o755)

    def spec(self, model: str, *arguments: str, memory_bytes: int = 64 * MIB, **changes: Any) -> WorkerSpec:  # noqa: ANN401
        """Make the directories of a fake worker, as the controller does, and describe it."""
        folder, run, kv = (self.root / kind / model for kind in ("models", "workers", "kv"))
        for directory in (folder, run, kv):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (run, kv):
            self._give_to_worker(directory)
        mounts = (
            Mount(source=PurePosixPath(folder), target=PurePosixPath("/model"), read_only=True),
            Mount(source=PurePosixPath(run), target=PurePosixPath("/run/worker"), read_only=False),
            Mount(source=PurePosixPath(kv), target=PurePosixPath("/kv"), read_only=False),
        )
        wanted: dict[str, Any] = {
            "model": ModelName(model),
            "image": self.image,
            # Tests may run as somebody outside the workers' group.
            "argv": ("--socket", "/run/worker/worker.sock", "--socket-mode", "666", "--model-name", model, *arguments),
            "mounts": mounts,
            "memory_bytes": memory_bytes,
            "socket": PurePosixPath(run) / "worker.sock",
            "pids_limit": 32,
        }
        return WorkerSpec(**{**wanted, **changes})

    def socket(self, model: str) -> Path:
        """Return where the worker's socket appears on the host."""
        return self.root / "workers" / model / "worker.sock"

    def ask(self, model: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the worker itself."""
        return client.ask(self.socket(model), method, path, body)

    async def ready(self, model: str) -> None:
        """Wait until the worker answers."""
        await until(f"{model} answers", lambda: client.is_ready(self.socket(model)))

    def container(self, model: str) -> str:
        """Return the worker's name on the engine."""
        return f"{self.owner}-{model}"

    def run_inside(self, model: str, *argv: str) -> tuple[int, str]:
        """Run a command inside the container, sealed as it is; return its exit code and what it wrote."""
        made = self.engine.exec_create(self.container(model), list(argv))
        output: bytes = self.engine.exec_start(made["Id"])
        return int(self.engine.exec_inspect(made["Id"])["ExitCode"]), output.decode(errors="replace")

    def report(self) -> str:
        """Return state and log of everything here, for a test that failed."""
        parts = []
        for row in self._containers():
            try:
                state = self.engine.inspect_container(row["Id"])["State"]
                log = self.engine.logs(row["Id"], tail=50).decode(errors="replace")
                parts.append(f"--- {row['Names'][0]}: {state}\n{log}")
            except docker.errors.NotFound:
                continue
        return "\n".join(parts)

    def clear(self) -> None:
        """Remove the containers with this place's label, and the directories."""
        for row in self._containers():
            try:
                self.engine.remove_container(row["Id"], force=True, v=True)
            except docker.errors.NotFound:
                continue
        shutil.rmtree(self.root, ignore_errors=True)

    def _containers(self) -> list[dict[str, Any]]:
        # By prefix: a test that needs a second owner derives its name from this one.
        rows = self.engine.containers(all=True, filters={"label": LABEL_OWNER})
        return [row for row in rows if row["Labels"][LABEL_OWNER].startswith(self.owner)]

    @staticmethod
    def _give_to_worker(directory: Path) -> None:
        if os.geteuid() == 0:
            os.chown(directory, WORKER_UID, GROUP_GID)
            directory.chmod(0o770)
        else:
            directory.chmod(0o777)
