"""The image of the fake worker: made once for each content, on top of the project's base."""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

import docker
import docker.errors

FOLDER = Path(__file__).parent
FILES = ("Dockerfile", "worker.py")
REPOSITORY = "windlass/fakeworker"
BASE_REPOSITORY = "windlass/base"


def base_image(client: docker.APIClient) -> str:
    """Return the base: what `WINDLASS_BASE_IMAGE` names, or the newest one the engine has."""
    if named := os.environ.get("WINDLASS_BASE_IMAGE"):
        return named
    found = sorted(client.images(BASE_REPOSITORY), key=lambda image: (image["Created"], sorted(image["RepoTags"] or ())))
    assert found, f"wanted an image {BASE_REPOSITORY}, the engine has none; run `make images`"
    return str(sorted(found[-1]["RepoTags"])[0])


def tag(client: docker.APIClient) -> str:
    """Return the tag for what the folder and the base are now."""
    digest = hashlib.sha256(client.inspect_image(base_image(client))["Id"].encode())  # type: ignore[no-untyped-call]
    for name in FILES:
        digest.update((FOLDER / name).read_bytes())
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def ensure(client: docker.APIClient) -> str:
    """Make the image unless it is there, and return its tag; several test processes may ask at once."""
    wanted = tag(client)
    lock = Path(tempfile.gettempdir()) / f"{wanted.replace('/', '-').replace(':', '-')}.{os.getuid()}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            client.inspect_image(wanted)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            _build(client, wanted)
    return wanted


def _build(client: docker.APIClient, wanted: str) -> None:
    # The host's network: packages may come through a proxy or a mirror that only the host reaches.
    steps = client.build(
        path=str(FOLDER),
        tag=wanted,
        buildargs={"BASE": base_image(client)},
        network_mode="host",
        rm=True,
        decode=True,
    )
    log = [step.get("stream") or step.get("error") or "" for step in steps]
    assert client.images(wanted), f"the fake worker's image was not made:\n{''.join(log)}"
