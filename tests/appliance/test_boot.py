"""The image, started from nothing: it answers, it has made itself what it needs, and it holds what it promises."""

import json
import re
from typing import Final

import pytest

from bench.stack import wait_until
from tests.appliance.box import HOME, NAME, Box, FirstBoot
from tests.appliance.disk import Disk
from tests.appliance.figures import FIGURES
from tests.appliance.hardware import Hardware

pytestmark = pytest.mark.appliance

GIB: Final = 1024**3
FILL: Final = "i=0; while :; do i=$((i+1)); head -c 4194304 /dev/zero > /tmp/$i; done"
"""Take memory without an end, for a worker's shell."""
FULL: Final = "full"
SETTLED_S: Final = 30


def test_a_model_answers_through_the_forwarded_port(box: Box) -> None:
    """With the key that was told on the console; without one nobody is answered."""
    box.wait_for_models(NAME)
    body = {"model": NAME, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8, "temperature": 0}
    with box.caller() as caller:
        answer = caller.post("/v1/chat/completions", body)
        refused = caller.post("/v1/chat/completions", body, headers={"authorization": ""})

    assert 200 == answer.status_code, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert 401 == refused.status_code


def test_the_machine_is_called_after_its_serial_number(box: Box) -> None:
    """Two boxes on one network have two names."""
    assert f"windlass-{Hardware().serial_number.lower()}" == box.vm.shell("hostname")


def test_what_was_made_once_survives_a_start(box: Box, first_boot: FirstBoot) -> None:
    """Machine id, host key and API key are those of the first start, and the key is told once only."""
    shell = box.vm.shell
    host_key = re.search(r"ssh key +(.*)", first_boot.console)
    assert host_key

    assert shell("cat /etc/machine-id") == shell(f"cat {HOME}/etc/machine-id")
    assert re.fullmatch(r"[0-9a-f]{32}", shell("cat /etc/machine-id"))
    assert host_key[1].strip() == shell(f"ssh-keygen -l -f {HOME}/etc/ssh/ssh_host_ed25519_key.pub")
    assert box.key == shell(f"cat {HOME}/etc/api-key")
    box.vm.wait_for(r"health +\{", within_s=300)
    assert box.key not in box.vm.console.text


def test_the_console_tells_where_the_machine_is_reached(first_boot: FirstBoot) -> None:
    """By the address that its network has given it, and by no other."""
    assert {"http://10.0.2.15:8000"} == set(re.findall(r"address +(http\S+)", first_boot.console))


def test_only_root_reads_the_key(box: Box) -> None:
    """Its file is root's, and nobody else's to read."""
    assert "600 root root" == box.vm.shell(f"stat -c '%a %U %G' {HOME}/etc/api-key")


def test_the_data_partition_has_grown_to_the_disk(box: Box) -> None:
    """The image is small; the machine's disk is used to its end."""
    size_bytes = int(box.vm.shell(f"df --block-size=1 --output=size {HOME} | tail -n 1"))
    disk_bytes = int(box.vm.shell("lsblk --bytes --nodeps --noheadings --output SIZE /dev/vda"))
    data_starts = int(box.vm.shell("cat /sys/class/block/$(basename $(readlink -f /dev/disk/by-partlabel/data))/start")) * 512

    assert size_bytes > 0.93 * (disk_bytes - data_starts)
    assert disk_bytes - data_starts > 4 * GIB


def test_the_system_cannot_be_written(box: Box) -> None:
    """The root file system is read-only; what is written lies on the data partition or in memory."""
    done = box.vm.shell.run("touch /usr/lib/windlass/mark /etc/mark /mark")

    assert 3 == done.err.count("Read-only file system")
    assert "ro" in box.vm.shell("findmnt --noheadings --output OPTIONS /").split(",")


def test_the_journal_is_kept_and_bounded(box: Box) -> None:
    """It lies on the data partition, what was told before the last start included, and systemd holds it to a size."""
    shell = box.vm.shell
    limits = shell("journalctl --unit systemd-journald --boot --grep 'System Journal' --output cat --no-pager")
    most = re.search(r"max ([\d.]+)([MG])", limits)
    assert most, limits

    assert shell("ls /var/log/journal/$(cat /etc/machine-id)") == shell(f"ls {HOME}/journal/$(cat /etc/machine-id)")
    assert int(shell("journalctl --list-boots --no-pager --output json | grep -o boot_id | wc -l")) >= 2
    assert float(most[1]) * (1024 if most[2] == "G" else 1) <= 256


def test_every_unit_runs(box: Box) -> None:
    """Nothing failed on the way up, and systemd watches controller and gateway."""
    shell = box.vm.shell

    wait_until(lambda: not shell("systemctl list-jobs --no-legend"), "systemd has nothing left to start", 300)
    assert "" == shell("systemctl --failed --no-legend")
    for kind in ("controller", "gateway"):
        unit = shell(f"systemctl list-units --plain --no-legend 'windlass-{kind}@*' | cut -d' ' -f1")
        watched = shell(f"systemctl show --property WatchdogUSec,Type,StatusText,SubState '{unit}'")
        assert "WatchdogUSec=1min" in watched
        assert "SubState=running" in watched


def test_the_check_finds_nothing_wrong(box: Box) -> None:
    """What `windlass check` says of this box is that it will do."""
    checked = box.vm.shell.run("windlass check", within_s=300)

    assert 0 == checked.code, checked.out + checked.err


def test_the_engine_counts_memory_by_the_second_version_of_control_groups(box: Box) -> None:
    """Systemd owns the tree, and Docker asks it."""
    told = json.loads(box.vm.shell("docker info --format '{{json .}}'"))

    assert ("systemd", "2") == (told["CgroupDriver"], told["CgroupVersion"])
    assert f"{HOME}/docker" == told["DockerRootDir"]
    assert told["LiveRestoreEnabled"]


def test_a_worker_at_its_limit_is_ended_by_the_kernel_and_told_apart(box: Box) -> None:
    """The limit is the kernel's, swap included; the caller of the stream hears that it was memory."""
    shell, worker = box.vm.shell, f"windlass-{FULL}"
    box.place_model(FULL, 'memory = "64MiB"\n')
    box.wait_for_models(FULL)
    with box.caller() as caller:
        assert 200 == caller.complete(FULL, tokens=1).status_code
        group = shell(f"cut -d: -f3 /proc/$(docker inspect --format '{{{{.State.Pid}}}}' {worker})/cgroup")
        limits = shell(f"cat /sys/fs/cgroup{group}/memory.max /sys/fs/cgroup{group}/memory.swap.max").split()
        shell(f"docker update --cpus 0.1 {worker}")
        with caller.stream(FULL) as stream:
            stream.next()
            shell.run(f"docker exec {worker} timeout 120 sh -c '{FILL}'", within_s=180)
            error = stream.rest()[-1]["error"]

    assert [str(64 * 1024**2), "0"] == limits
    assert ("worker_out_of_memory", "out_of_memory") == (error["code"], error["details"]["cause"])
    assert shell("dmesg | grep -c 'Memory cgroup out of memory'") != "0"


def test_systemd_keeps_memory_for_controller_and_gateway(box: Box) -> None:
    """Both run in the slice that has a claim on memory, and the kernel knows it."""
    shell = box.vm.shell
    running = shell("systemctl list-units --plain --no-legend 'windlass-gateway@*' 'windlass-controller@*' | wc -l")
    groups = shell("ls -d /sys/fs/cgroup/windlass.slice/docker-*.scope | wc -l")

    assert ("2", "2") == (running, groups)
    assert int(shell("cat /sys/fs/cgroup/windlass.slice/memory.min")) >= 64 * 1024**2


def test_figures(box: Box, first_boot: FirstBoot, image: Disk) -> None:
    """Write down what the README says: seconds to the first answer of `/health`, and memory at rest."""
    shell = box.vm.shell
    box.vm.shut_down()
    again_s = box.start()
    shell(f"sleep {SETTLED_S}", within_s=300)
    memory = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB", shell("cat /proc/meminfo"), re.MULTILINE)}
    slice_bytes = int(shell("cat /sys/fs/cgroup/windlass.slice/memory.current"))
    figures = {
        "processors": "software (TCG)",
        "cores": box.vm.hardware.cores,
        "memory_total_bytes": memory["MemTotal"],
        "idle_memory_used_bytes": memory["MemTotal"] - memory["MemAvailable"],
        "idle_controller_and_gateway_bytes": slice_bytes,
        "first_boot_to_health_s": round(first_boot.healthy_s),
        "first_boot_to_key_s": round(first_boot.told_s),
        "boot_to_health_s": round(again_s),
        "image_bytes": image.path.stat().st_size,
        "image_used_bytes": image.path.stat().st_blocks * 512,
    }
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures))  # noqa: T201 -- for whoever writes the README

    assert figures["idle_memory_used_bytes"] < GIB
