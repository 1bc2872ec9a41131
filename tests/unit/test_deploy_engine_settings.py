"""What is added to the engine's settings of a stock system, and what is left alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.ops.deploy.engine_settings import NVIDIA, merge
from controller.ops.deploy.errors import UnfitError

SETTINGS = st.dictionaries(
    st.sampled_from(["data-root", "log-driver", "live-restore", "default-runtime", "mtu"]), st.booleans() | st.text(), max_size=5
)


def test_an_engine_without_settings_gets_ours() -> None:
    """Containers live on when the engine restarts; a Jetson's find their GPU."""
    assert {"live-restore": True} == json.loads(merge("", jetson=False, swarm=False).text)
    assert {"live-restore": True, "runtimes": {"nvidia": NVIDIA}} == json.loads(merge("{}", jetson=True, swarm=False).text)


def test_what_somebody_decided_stays() -> None:
    """A setting that is there is not decided anew, and other runtimes stay beside NVIDIA's."""
    text = '{"live-restore": false, "data-root": "/mnt/nvme/docker", "runtimes": {"kata": {"path": "kata"}}}'
    merged = merge(text, jetson=True, swarm=False)

    assert ("runtimes",) == merged.added
    assert {
        "live-restore": False,
        "data-root": "/mnt/nvme/docker",
        "runtimes": {"kata": {"path": "kata"}, "nvidia": NVIDIA},
    } == json.loads(merged.text)


def test_a_swarm_keeps_its_engine_as_it_is() -> None:
    """An engine of a swarm would not start with live-restore."""
    assert () == merge("", jetson=False, swarm=True).added


@given(SETTINGS, st.booleans(), st.booleans())
def test_nothing_is_lost_and_nothing_is_done_twice(there: dict[str, object], jetson: bool, swarm: bool) -> None:
    """Every setting that was there is there afterwards, as it was; a second look adds nothing."""
    merged = merge(json.dumps(there), jetson=jetson, swarm=swarm)

    assert there.items() <= json.loads(merged.text).items()
    assert () == merge(merged.text, jetson=jetson, swarm=swarm).added


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"runtimes": []}'])
def test_a_file_that_is_none_is_not_written_over(text: str) -> None:
    """What an engine would not take is for a person to mend."""
    with pytest.raises(UnfitError, match="mend it, or move it away"):
        merge(text, jetson=True, swarm=False)
