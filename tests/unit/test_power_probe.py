"""What power and heat of a box are read from: recorded boards, and files that are not as they should be."""

import math
from pathlib import Path

import pytest

from controller.pace import signs
from controller.power import QUIET, Card, HotSpot, PowerMode, Throttle
from controller.probes.power import parse_modes, read_card_clocks, read_modes, read_power
from controller.probes.system import LocalSystem, Outcome, RecordedSystem
from tests.devices import NAMES, recorded

MODES = {
    "orin-nano-jp6.2.1": ("15W", "MAXN_SUPER"),
    "orin-nano-jp6.2.2": ("25W", "MAXN_SUPER"),
    "orin-nano-jp7.2": ("MAXN_SUPER", "MAXN_SUPER"),
}
CONF = """
# < POWER_MODEL ID=9 NAME=COMMENT >
< PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_clk_cap/emc
< POWER_MODEL ID=0 NAME=MAXN >
GPU MAX_FREQ -1
EMC MAX_FREQ 0
CPU_A78_0 MAX_FREQ -1
< POWER_MODEL ID=1 NAME=50W >
CPU_A78_0 MIN_FREQ 729600
CPU_A78_0   MAX_FREQ 1497600
CPU_A78_1 MAX_FREQ 1200000
GPU MAX_FREQ 828750000
EMC MAX_FREQ 3199000000
< PM_CONFIG DEFAULT=1 >
"""
QUERY = "nvidia-smi --query-gpu=index,clocks.sm,clocks.max.sm,power.limit,power.default_limit,{} --format=csv,noheader,nounits"
NEW, OLD = QUERY.format("clocks_event_reasons.active"), QUERY.format("clocks_throttle_reasons.active")


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_box_is_read_alike_from_files_and_from_the_record(name: str, tmp_path: Path) -> None:
    """And none of them is hot, which says that no odd file is taken for heat."""
    recording = recorded(name)
    reading = read_power(recording.system)
    local = LocalSystem([recording.unpack(tmp_path)])

    assert (reading.modes, reading.spots, reading.counts) == (
        read_modes(local),
        read_power(local).spots,
        read_power(local).counts,
    )
    assert [] == [sign for sign in signs(reading, reading, elapsed_s=2.0) if "power mode" not in sign.text]


@pytest.mark.parametrize(("name", "expected"), MODES.items())
def test_the_mode_of_a_recorded_nano_is_known_by_name(name: str, expected: tuple[str, str]) -> None:
    """The one that is set, and the strongest, whose number is 2 there."""
    modes = read_modes(recorded(name).system)

    assert modes.now
    assert modes.strongest
    assert expected == (modes.now.name, modes.strongest.name)
    assert modes.strongest.number == 2


def test_a_zone_that_sleeps_is_left_out() -> None:
    """Those of engines that are off answer with an error, or with a temperature that nothing has."""
    spots = read_power(recorded("orin-nano-jp6.2.1").system).spots

    assert all(spot.celsius > 0 for spot in spots)
    assert not any(spot.name.startswith("cv") for spot in spots)


def test_caps_of_a_mode_are_read_and_zero_is_none() -> None:
    """Comments and parameters are no modes; of the processors, the slowest counts."""
    assert (
        PowerMode(number=0, name="MAXN"),
        PowerMode(number=1, name="50W", gpu_hz=828750000.0, memory_hz=3199e6, cpu_hz=1.2e9),
    ) == parse_modes(CONF)
    assert math.isinf(parse_modes(CONF)[0].memory_hz)
    assert () == parse_modes("")


@pytest.mark.parametrize(("status", "current"), [("pmode:0002 fmode:quiet\n", 2), ("pmode:0000\n", 0), ("odd", None), ("", None)])
def test_the_mode_that_is_set_stands_in_the_status(status: str, current: int | None) -> None:
    """By its number, with zeros before it; the fan's profile may follow."""
    system = RecordedSystem(files={"/etc/nvpmodel.conf": CONF, "/var/lib/nvpmodel/status": status})

    assert current == read_modes(system).current


def zone(**files: str) -> RecordedSystem:
    """Make a box with one thermal zone."""
    return RecordedSystem(files={f"/sys/class/thermal/thermal_zone0/{name}": text for name, text in files.items()})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"type": "tj", "temp": "51250"}, (HotSpot(name="tj", celsius=51.25),)),
        ({"temp": "51250"}, (HotSpot(name="thermal_zone0", celsius=51.25),)),
        ({"type": "cv0", "temp": "-256000"}, ()),
        ({"type": "cv0", "temp": "warm"}, ()),
        ({"type": "cv0"}, ()),
        (
            {
                "type": "cpu",
                "temp": "40000",
                "trip_point_0_type": "critical",
                "trip_point_0_temp": "104500",
                "trip_point_1_type": "passive",
                "trip_point_1_temp": "99000",
                "trip_point_2_type": "active",
                "trip_point_2_temp": "60000",
                "trip_point_3_type": "passive",
                "trip_point_3_temp": "0",
            },
            (HotSpot(name="cpu", celsius=40.0, limit_celsius=99.0),),
        ),
    ],
)
def test_a_zone_has_the_lowest_limit_that_slows_the_box_down(files: dict[str, str], expected: tuple[HotSpot, ...]) -> None:
    """A fan is no limit, and neither is zero."""
    assert expected == read_power(zone(**files)).spots


def test_only_what_slows_something_down_is_a_throttle() -> None:
    """A fan at work is no harm, and the GPU's clock shows a state when nothing is hot."""
    files = {}
    devices = [("pwm-fan", 3), ("gpu-throttle-alert", 1), ("devfreq-gpu-gpc-0", 18), ("cpufreq-cpu0", 0), ("Processor", 2)]
    for number, (kind, state) in enumerate([*devices, ("thermal-cpufreq-0", 1)]):
        folder = f"/sys/class/thermal/cooling_device{number}"
        files |= {f"{folder}/type": kind, f"{folder}/cur_state": str(state), f"{folder}/max_state": "10"}
    files |= {"/sys/class/thermal/cooling_device99/type": "Processor"}

    assert (
        Throttle(name="gpu-throttle-alert", state=1, most=10),
        Throttle(name="cpufreq-cpu0", state=0, most=10),
        Throttle(name="Processor", state=2, most=10),
        Throttle(name="thermal-cpufreq-0", state=1, most=10),
    ) == read_power(RecordedSystem(files=files)).throttles


def test_events_of_the_supply_are_told_apart() -> None:
    """Under-voltage is a weak supply, over-current a greedy load; other monitors count nothing of the kind."""
    files = {
        "/sys/class/hwmon/hwmon0/name": "ina3221",
        "/sys/class/hwmon/hwmon0/oc1_event_cnt": "9",
        "/sys/class/hwmon/hwmon3/name": "soctherm_oc",
        "/sys/class/hwmon/hwmon3/oc1_event_cnt": "1",
        "/sys/class/hwmon/hwmon3/oc3_event_cnt": "27390",
    }

    assert {"under-voltage of its supply": 1, "over-current at an instant": 27390} == read_power(
        RecordedSystem(files=files)
    ).counts


def test_the_time_of_slow_processors_is_better_than_their_events() -> None:
    """Of several packages the one that was slow for longest; events count only where nobody counts the time."""
    folder = "/sys/devices/system/cpu/cpu{}/thermal_throttle/{}"
    events = {folder.format(number, "core_throttle_count"): str(number + 1) for number in range(3)}
    times = {folder.format(number, "package_throttle_total_time_ms"): str(1000 * number) for number in range(3)}
    with_both = read_power(RecordedSystem(files=events | times))
    without = read_power(RecordedSystem(files=events))

    assert (2.0, {}) == (with_both.slowed_s, with_both.counts)
    assert (None, {"heat of the processors": 6}) == (without.slowed_s, without.counts)


def test_a_limit_of_the_processors_is_the_average_of_their_clusters() -> None:
    """A cluster that does not tell is left out, and who tells nothing has no limit."""
    folder = "/sys/devices/system/cpu/cpufreq/policy{}/{}_max_freq"
    files = {
        folder.format(0, "scaling"): "1200000",
        folder.format(0, "cpuinfo"): "2400000",
        folder.format(4, "scaling"): "3000000",
        folder.format(4, "cpuinfo"): "3000000",
        folder.format(6, "scaling"): "1000000",
    }

    assert 0.75 == read_power(RecordedSystem(files=files)).processor_share
    assert 1.0 == read_power(RecordedSystem()).processor_share


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0, 1410, 1410, 350.00, 350.00, 0x0000000000000000", (Card(index=0),)),
        ("1, 705, 1410, 280.00, 350.00, 0x0000000000000020", (Card(index=1, share=0.5, hot=True, limit_share=0.8),)),
        ("0, 1200, 1410, 400.00, 350.00, 0x0000000000000004", (Card(index=0, share=1200 / 1410),)),
        ("0, [N/A], [N/A], [N/A], [N/A], 0x0", ()),
        ("0, 0, 0, 1, 1, 0x0", ()),
        ("odd", ()),
    ],
)
def test_the_clock_of_a_card_is_read(line: str, expected: tuple[Card, ...]) -> None:
    """Its share of the highest, whether heat or a weak supply is why, and whether somebody has lowered its limit."""
    assert expected == read_card_clocks(RecordedSystem(commands={NEW: Outcome(code=0, out=line + "\n")}))


def test_an_older_driver_is_asked_in_its_own_words() -> None:
    """It refuses the name that newer ones use; and who refuses both tells nothing."""
    refused, told = Outcome(code=2, out=""), Outcome(code=0, out="0, 1, 1, 1, 1, 0x8\n")

    assert (Card(index=0, hot=True),) == read_card_clocks(RecordedSystem(commands={NEW: refused, OLD: told}))
    assert () == read_card_clocks(RecordedSystem(commands={NEW: refused, OLD: refused}))
    assert QUIET == read_power(RecordedSystem())
