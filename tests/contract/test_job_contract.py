"""What every driver promises of jobs: the containers in which builds work."""

import pytest

from controller.drivers.base import Job
from controller.errors import ContainerMissingError, EngineError
from controller.spec import ModelName
from controller.state import ExitCause
from tests.contract.rigs import LIMIT_BYTES, Rig

A = ModelName("alpha")


async def only(rig: Rig) -> Job:
    """Return the one job there is."""
    (found,) = await rig.driver.jobs()
    return found


async def test_a_job_runs_under_its_labels(rig: Rig) -> None:
    """What was begun is shown with its build, its step and its memory, and what it writes can be read."""
    await rig.driver.begin_job(rig.job("one", step=2))
    await rig.at_work("one")

    assert await only(rig) == Job(build="one", step=2, running=True, memory_bytes=LIMIT_BYTES, exit=None)
    assert await rig.driver.job_logs("one", tail=1) == "at work\n"


@pytest.mark.parametrize(("code", "cause"), [(0, ExitCause.STOPPED), (3, ExitCause.CRASHED)])
async def test_a_job_that_ended_says_how(rig: Rig, code: int, cause: ExitCause) -> None:
    """Its exit code is there, and its log is, until it is ended."""
    await rig.driver.begin_job(rig.job("one"))
    await rig.at_work("one")

    await rig.job_ends("one", code)

    shown = await only(rig)
    assert (shown.running, shown.exit and shown.exit.code, shown.exit and shown.exit.cause) == (False, code, cause)
    assert "at work" in await rig.driver.job_logs("one", tail=1)


async def test_a_job_runs_once(rig: Rig) -> None:
    """Beginning it again changes nothing, neither while it runs nor after it has ended."""
    await rig.driver.begin_job(rig.job("one"))
    await rig.driver.begin_job(rig.job("one", step=1))
    running = await only(rig)
    await rig.job_ends("one", 0)

    await rig.driver.begin_job(rig.job("one"))

    assert (running.step, running.running) == (0, True)
    assert not (await only(rig)).running


async def test_the_end_of_a_job_leaves_nothing(rig: Rig) -> None:
    """A running job is killed and deleted; ending what is not there is no error."""
    await rig.driver.begin_job(rig.job("one"))
    await rig.driver.begin_job(rig.job("two"))

    await rig.driver.end_job("one")
    await rig.driver.end_job("one")

    assert [job.build for job in await rig.driver.jobs()] == ["two"]
    with pytest.raises(ContainerMissingError):
        await rig.driver.job_logs("one", tail=1)


async def test_jobs_and_workers_do_not_see_each_other(rig: Rig) -> None:
    """A job is no worker and a worker no job, whatever they are called, and nobody sees those of another owner."""
    await rig.driver.create(rig.spec(A))
    await rig.driver.begin_job(rig.job("alpha"))
    other = rig.another(f"{rig.owner}-other")

    await rig.driver.remove(A)

    assert [job.build for job in await rig.driver.jobs()] == ["alpha"]
    assert not await rig.driver.list()
    assert not await other.jobs()
    await other.end_job("alpha")
    assert [job.build for job in await rig.driver.jobs()] == ["alpha"]


async def test_a_job_without_its_image_says_which(rig: Rig) -> None:
    """A missing image is an error that names the image and the command that makes it, and leaves no job."""
    with pytest.raises(EngineError, match=r"windlass/no-such-image:none.*make images"):
        await rig.driver.begin_job(rig.job("one", image="windlass/no-such-image:none"))

    assert not await rig.driver.jobs()
