"""A board is flashed from archives to the last command, with programs that fail where NVIDIA's would."""

from tests.flash.conftest import Bench


def test_a_board_is_flashed(bench: Bench) -> None:
    """Everything is called in NVIDIA's order, with its options, and the board gets a root file system that is an appliance."""
    bench.plug_in("7523")

    bench.flash()

    assert [
        "l4t_flash_prerequisites.sh",
        "apply_binaries.sh",
        "l4t_create_default_user.sh",
        "l4t_initrd_flash.sh",
    ] == bench.tools()
    assert {"board": "jetson-orin-nano-devkit-super", "device": "external", "product": "7523", "root": "20GiB"} == bench.flashed()
