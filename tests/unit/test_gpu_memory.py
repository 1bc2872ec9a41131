"""What the processes of a container hold on GPUs."""

from controller.gpu_memory import GpuReading

READING = GpuReading(held_bytes={10: {0: 100, 1: 7}, 11: {0: 20}, 12: {0: 5}}, used_bytes={0: 300, 1: 7})


def test_the_processes_of_a_container_are_added_up_card_by_card() -> None:
    """Others are left out, and one that holds nothing adds nothing."""
    assert READING.of([10, 11, 99]) == {0: 120, 1: 7}


def test_who_has_no_processes_holds_nothing() -> None:
    """That is a figure, too: it is not the same as not knowing."""
    assert not READING.of([])
