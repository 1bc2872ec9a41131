"""The series of a run as pictures: what a swap is made of, memory over time, latencies beside the router's, waits by load."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controller.units import GIB

WIDE_INCHES: Final = (9.0, 5.0)
DOTS_PER_INCH: Final = 120
OVERLAPPING: Final = frozenset({"read_s"})
"""Parts of a swap that run beside others; they are drawn as bars of their own."""
OURS: Final = "Windlass"
COLOURS: Final = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"),
    *("#332288", "#999933", "#882255", "#44aa99", "#000000", "#dd9944", "#5f4690"),
)
"""Told apart by most who do not see all colours, too."""

Series = Mapping[str, Any]


def draw(series: Mapping[str, Series], folder: Path) -> list[Path]:
    """Draw the pictures whose series are there, by the name of the part they come from, and return their files."""
    mpl.rcParams.update({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
    drawn: list[Path] = []
    for name, part, paint in PICTURES:
        if series.get(part):
            figure = Figure(figsize=WIDE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
            paint(figure, series[part])
            path = folder / f"{name}.png"
            figure.savefig(path)
            drawn.append(path)
    return drawn


def stacked(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the parts of a swap that follow each other, as words and seconds, those that took no time left out."""
    follow = [(name, seconds) for name, seconds in parts.items() if name not in OVERLAPPING]
    return [(_word(name), seconds) for name, seconds in follow if seconds > 0]


def beside(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the parts of a swap that run beside others."""
    return [(_word(name), seconds) for name, seconds in parts.items() if name in OVERLAPPING and seconds > 0]


def steps(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return, for values that are sorted, each one and the share of all that is not larger."""
    return list(values), [number / len(values) for number in range(1, len(values) + 1)]


def _word(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _swap_breakdown(figure: Figure, series: Series) -> None:
    axes = figure.subplots()
    bars: list[tuple[str, list[tuple[str, float]]]] = []
    for how, label in (("cold", "in, cold"), ("warm", "in, warm"), ("out", "out")):
        bars += [(f"{label}: {word}, beside", [(word, seconds)]) for word, seconds in beside(series.get(how, {}))]
        bars += [(label, stacked(series.get(how, {})))]
    colours: dict[str, str] = {}
    for place, (_, parts) in enumerate(bars):
        left_s = 0.0
        for word, seconds in parts:
            new = word not in colours
            colour = colours.setdefault(word, COLOURS[len(colours) % len(COLOURS)])
            axes.barh(place, seconds, left=left_s, color=colour, label=word if new else None)
            left_s += seconds
        axes.text(left_s, place, f" {left_s:.2f} s", va="center")
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    axes.margins(x=0.12)
    axes.set_xlabel("seconds, medians")
    axes.set_title("What a swap of 2.88 GiB is made of")
    if colours:
        axes.legend(ncols=2, fontsize=8)


def _memory_over_time(figure: Figure, series: Series) -> None:
    rows: Any = figure.subplots(len(series), 1, squeeze=False)
    for (name, one), (axes,) in zip(series.items(), rows, strict=True):
        times_s = [time_s for time_s, _, _ in one["memory"]]
        axes.fill_between(
            times_s,
            [committed / GIB for _, committed, _ in one["memory"]],
            step="post",
            color=COLOURS[0],
            alpha=0.5,
            label="committed",
        )
        axes.plot(times_s, [budget / GIB for _, _, budget in one["memory"]], color=COLOURS[1], label="budget")
        axes.set_title(f"Memory during the trace {name}")
        axes.set_ylabel("GiB")
        axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.legend(loc="lower right")


def _latencies(figure: Figure, series: Series) -> None:
    (columns,) = figure.subplots(1, len(series), squeeze=False)
    for (name, one), axes in zip(series.items(), columns, strict=True):
        for key, label, colour in (("windlass_s", OURS, COLOURS[0]), ("router_s", "llama.cpp's router", COLOURS[1])):
            axes.step(*steps(one[key]), where="post", color=colour, label=label)
        axes.set_title(f"Trace {name}")
        axes.set_xlabel("seconds from asking to the last byte")
        axes.set_ylim(0, 1)
    columns[0].set_ylabel("share of requests")
    columns[0].legend(loc="lower right")


def _wait_by_load(figure: Figure, series: Series) -> None:
    columns: Any = figure.subplots(1, 2, sharey=True)
    rates = sorted(series, key=float)
    policies = list(series[rates[0]])
    for axes, (key, title) in zip(columns, (("p50_s", "median"), ("p99_s", "99th percentile")), strict=True):
        for number, policy in enumerate(policies):
            _line(axes, rates, [series[rate][policy][key] for rate in rates], policy, COLOURS[number % len(COLOURS)])
        axes.set_title(f"Wait, {title}, worst seed")
        axes.set_xlabel("requests a second")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    columns[0].set_ylabel("seconds")
    columns[0].legend(fontsize=8)


def _line(axes: Axes, rates: Sequence[str], values: Sequence[float], label: str, colour: str) -> None:
    axes.plot([float(rate) for rate in rates], values, marker="o", color=colour, label=label)


Paint = Callable[[Figure, Series], None]
PICTURES: Final[Sequence[tuple[str, str, Paint]]] = (
    ("swap-breakdown", "swap", _swap_breakdown),
    ("budget-over-time", "trace", _memory_over_time),
    ("latency-of-traces", "trace", _latencies),
    ("wait-by-load", "simulator", _wait_by_load),
)
