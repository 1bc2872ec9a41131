"""The image: made once for each content, on top of the project's base."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import docker
import docker.errors

from tests.fakeworker.image import base_image

FOLDER = Path(__file__).parent
ENTRY = FOLDER.parents[1] / "images" / "entry"
REPOSITORY = "windlass/forwarder"


def ensure(client: docker.APIClient) -> str:
    """Make the image unless it is there, and return its tag; several test processes may ask at once."""
    base = base_image(client)
    digest = hashlib.sha256(client.inspect_image(base)["Id"].encode())  # type: ignore[no-untyped-call]
    for path in (*sorted(ENTRY.iterdir()), FOLDER / "Dockerfile", FOLDER / "server.py"):
        digest.update(path.read_bytes())
    wanted = f"{REPOSITORY}:{digest.hexdigest()[:12]}"
    lock = Path(tempfile.gettempdir()) / f"{wanted.replace('/', '-').replace(':', '-')}.{os.getuid()}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            client.inspect_image(wanted)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            _build(client, wanted, base)
    return wanted


def _build(client: docker.APIClient, wanted: str, base: str) -> None:
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(ENTRY, Path(context) / "entry")
        for name in ("Dockerfile", "server.py"):
            shutil.copy(FOLDER / name, context)
        # The host's network: packages may come through a proxy or a mirror that only the host reaches.
        steps = client.build(path=context, tag=wanted, buildargs={"BASE": base}, network_mode="host", rm=True, decode=True)
        log = [step.get("stream") or step.get("error") or "" for step in steps]
    assert client.images(wanted), f"the forwarder's image was not made:\n{''.join(log)}"
