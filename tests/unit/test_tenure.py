"""The lock of the only controller, held by real processes."""

import asyncio
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from controller.app import LOCK_NAME, WAITS
from controller.tenure import LOOK_S, LOOKS_A_WORD, tenure
from tests.waiting import until

ROOT = Path(__file__).parents[2]
HOLDER = """
import asyncio, pathlib, sys
from controller.tenure import tenure
async def hold():
    async with tenure(pathlib.Path(sys.argv[1]), waits=lambda: None):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(hold())
"""


async def test_it_waits_for_the_process_before_it(tmp_path: Path) -> None:
    """It waits for as long as that process lives and says so now and then, and goes on when that was killed."""
    path, waited, entered = tmp_path / "run" / "lock", [], []

    async def succeed() -> None:
        async with tenure(path, waits=lambda: waited.append("waits")):
            entered.append("entered")

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, path, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    succeeding = asyncio.create_task(succeed())
    await until("it to wait", lambda: waited)
    await asyncio.sleep(LOOK_S * LOOKS_A_WORD / 2)
    assert ["waits"] == waited
    await until("it to say so again", lambda: len(waited) > 1)
    assert not entered
    process.kill()
    await process.wait()
    await asyncio.wait_for(succeeding, 10)

    assert ["entered"] == entered
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_a_controller_touches_nothing_before_its_turn(tmp_path: Path) -> None:
    """Systemd hears that it waits, in the word that a box's `switch` looks for; it makes no folder, and ends when it is told."""
    home, run, ear = tmp_path / "home", tmp_path / "run", tmp_path / "notify"
    environ = {"PATH": os.environ["PATH"], "WINDLASS_HOME": str(home), "WINDLASS_RUN": str(run), "NOTIFY_SOCKET": str(ear)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(ear))
        heard.setblocking(False)
        async with tenure(run / LOCK_NAME, waits=lambda: None):
            argv = (sys.executable, "-m", "controller", "serve")
            process = await asyncio.create_subprocess_exec(*argv, env=environ, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
            try:
                told = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(heard, 4096), 20)
                process.terminate()
                _, said = await asyncio.wait_for(process.communicate(), 20)
            finally:
                if process.returncode is None:
                    process.kill()

    assert f"STATUS={WAITS}" == told.decode()
    assert (0, False) == (process.returncode, home.exists()), said
    word = WAITS.partition(" ")[0]
    assert f"== {word}* ]]" in (ROOT / "appliance/box/tree/usr/lib/windlass/switch").read_text(encoding="utf-8")


async def test_alone_it_begins_at_once(tmp_path: Path) -> None:
    """And it leaves its place to the next one."""
    waited: list[str] = []
    for _ in range(2):
        async with tenure(tmp_path / "lock", waits=lambda: waited.append("waits")):
            pass

    assert [] == waited


async def test_who_waits_can_be_told_to_end(tmp_path: Path) -> None:
    """A release that is taken back before its turn has touched nothing."""
    path = tmp_path / "lock"

    async def succeed() -> None:
        async with tenure(path, waits=lambda: None):
            raise AssertionError("it was not its turn")

    async with tenure(path, waits=lambda: None):
        waiting = asyncio.create_task(succeed())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
