"""What the verbs print for people. Data in, something to print out; nothing here asks anybody."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from controller.device import Device, GpuAccess
from controller.ops import building
from controller.ops.check.values import Finding, Severity
from controller.ops.shapes import (
    BuildRow,
    CardStatus,
    Changed,
    DeviceStatus,
    DiskStatus,
    ExitStatus,
    KeyRow,
    ModelRow,
    Models,
    PaceStatus,
    Plan,
    Status,
    WaiterStatus,
    WorkerStatus,
)
from controller.units import format_bytes, format_seconds

_COLORS: Final[Mapping[str, str]] = {
    "ok": "green",
    "ready": "green",
    "resident": "green",
    "degraded": "yellow",
    "warning": "yellow",
    "starting": "yellow",
    "loading": "yellow",
    "building": "yellow",
    "finishing": "yellow",
    "verifying": "yellow",
    "waiting": "yellow",
    "built": "green",
    "stopping": "yellow",
    "failing": "red",
    "failed": "red",
    "error": "red",
    "note": "cyan",
    "planned": "yellow",
    "asks": "cyan",
    "yours": "yellow",
    "done": "green",
    "already": "green",
}

_ACCESS: Final[Mapping[GpuAccess, str]] = {
    GpuAccess.NONE: "out of reach of containers",
    GpuAccess.RUNTIME: "for containers by NVIDIA's runtime",
    GpuAccess.CDI: "for containers by CDI",
    GpuAccess.REQUEST: "for containers by the engine's own request",
}

_NOTHING: Final = "-"


def colored(word: str) -> str:
    """Mark *word* with the colour of its meaning."""
    color = _COLORS.get(word)
    return f"[{color}]{escape(word)}[/{color}]" if color else escape(word)


def workers_table(workers: Sequence[WorkerStatus]) -> Table:
    """Show the containers: `windlass ps`."""
    table = _table("model", "status", ">budget", ">private", ">files", ">on GPU", ">leases", ">up", "last exit")
    for worker in sorted(workers, key=lambda one: (one["status"] == "stopped", one["model"])):
        table.add_row(
            escape(worker["model"]),
            colored(worker["status"]),
            format_bytes(worker["memory_bytes"]),
            _bytes(worker["anon_bytes"]),
            _bytes(worker["file_bytes"]),
            _bytes(worker["gpu_bytes"]),
            str(worker["leases"]),
            _seconds(worker["run_s"]),
            _exit(worker["exit"]),
        )
    return table


def queue_table(queue: Sequence[WaiterStatus]) -> Table:
    """Show who waits, and for how long at most."""
    table = _table(">place", "model", ">waiting", ">likely in", ">at most", "priority", "request")
    for waiter in sorted(queue, key=lambda one: (one["model"], one["position"])):
        table.add_row(
            str(waiter["position"]),
            escape(waiter["model"]),
            format_seconds(waiter["waiting_s"]),
            format_seconds(waiter["eta_s"]),
            format_seconds(waiter["bound_s"]),
            escape(waiter["priority"]),
            escape(waiter["id"]),
        )
    return table


def models_table(models: Sequence[ModelRow]) -> Table:
    """Show every registered model: `windlass models`."""
    table = _table("model", "state", "engine", "tier", ">memory", ">context", ">load", ">tok/s", ">asked", ">failed", "tags")
    for model in sorted(models, key=lambda one: one["name"]):
        table.add_row(
            escape(model["name"]),
            colored(model["state"]) + _replicas(model) + (" (pinned)" if model["pinned"] else ""),
            escape(model["engine"]),
            escape(model["tier"]),
            f"{format_bytes(model['footprint_bytes'])} {_SOURCES.get(model['footprint_source'], '')}".rstrip(),
            f"{model['context_tokens']}" + (f" x {model['parallel']}" if model["parallel"] > 1 else ""),
            format_seconds(model["load_s"]),
            _NOTHING if model["tokens_per_s"] is None else f"{model['tokens_per_s']:.1f}",
            str(model["requests"]),
            str(model["failures"]),
            escape(", ".join(model["tags"])) or _NOTHING,
        )
    return table


def _replicas(model: ModelRow) -> str:
    return f" {model['replicas_ready']}/{model['replicas']}" if model["replicas"] > 1 else ""


_SOURCES: Final[Mapping[str, str]] = {"estimate": "(est.)", "override": "(set)"}


def builds_table(builds: Sequence[BuildRow]) -> Table:
    """Show the engine files: `windlass builds`."""
    table = _table("model", "state", "engine", "stored as", ">size", ">done", ">left", "served meanwhile", "why")
    for row in builds:
        table.add_row(
            escape(row["model"]),
            colored(row["state"]),
            escape(row["engine"]),
            row["quantization"] or "as it was",
            format_bytes(row["total_bytes"]),
            f"{row['progress']:.0%}",
            _seconds(row["eta_s"]),
            _NOTHING if row["state"] == "built" else row["serving"] or "nothing",
            escape(row["problem"] or row["why"]),
        )
    return table


def model_notes(body: Models) -> list[str]:
    """Say what is wrong with models and folders, a line each."""
    broken = [
        f"{colored('failed')}: {escape(model['name'])}: {escape(model['reason'])}" for model in body["models"] if model["reason"]
    ]
    drifts = ((model["name"], model["drift"]) for model in body["models"])
    drifted = [f"{colored('degraded')}: {escape(name)}: {escape(drift['why'])}" for name, drift in drifts if drift]
    folders = [f"{colored('error')}: {escape(row['folder'])}: {escape(row['text'])}" for row in body["problems"]]
    rows = (model.get("build") for model in body["models"])
    builds = [building.line(row) for row in rows if row and row["state"] != "built"]
    choices = ((model, model["engine_choice"]) for model in body["models"])
    fallen = [
        f"{colored('degraded')}: {escape(model['name'])}: it runs by {escape(model['engine'])}, since {escape(choice['reason'])}"
        for model, choice in choices
        if choice and choice["fell_back"]
    ]
    return broken + drifted + fallen + folders + builds


def status_lines(status: Status) -> list[str]:
    """Say how the box is doing: `windlass status`."""
    memory, disk = status["memory"], status["disk"]
    pressure = "unknown" if memory["pressure_some_avg10"] is None else f"{memory['pressure_some_avg10']:.1f} %"
    hottest = max(status["thermal"]["zones"], key=lambda zone: zone["celsius"], default=None)
    watts = ", ".join(f"{escape(rail['name'])} {rail['watts']:.1f} W" for rail in status["power"]["rails"])
    counts = _counts(worker["status"] for worker in status["workers"])
    return [
        f"windlass {escape(status['version'])}, {colored(status['state'])}, up {format_seconds(status['uptime_s'])}",
        *(f"  {escape(reason)}" for reason in status["reasons"]),
        f"memory   {format_bytes(memory['committed_bytes'])} of a budget of {format_bytes(memory['budget_bytes'])} committed; "
        f"{format_bytes(memory['available_bytes'])} of {format_bytes(memory['total_bytes'])} available; pressure {pressure}",
        *(_card(card) for card in status["cards"]),
        *_device(status["device"]),
        f"disk     {format_bytes(disk['home_free_bytes'])} of {format_bytes(disk['home_total_bytes'])} free{_speed(disk)}",
        *([f"heat     {escape(hottest['name'])} {hottest['celsius']:.0f} degrees C"] if hottest else []),
        *([f"power    {watts}"] if watts else []),
        *_pace(status["pace"]),
        f"workers  {counts or 'none'}",
        f"queue    {_queue(status['queue'])}",
        *(f"         {escape(line)}" for line in _transitions(status)),
    ]


def _card(card: CardStatus) -> str:
    """Say how full a card is, and who lies there."""
    here = ", ".join(f"{escape(worker['model'])} {format_bytes(worker['bytes'])}" for worker in card["workers"])
    return (
        f"gpu {card['index']:<4} {format_bytes(card['committed_bytes'])} of a budget of "
        f"{format_bytes(card['budget_bytes'])} committed; {here or 'no worker'}"
    )


def _device(device: DeviceStatus) -> list[str]:
    """Say what the box is, where there is more to say than that it has no GPU."""
    if not device["gpus"]:
        return [f"box      {escape(device['board'])}"] if device["board"] else []
    system = f"JetPack {device['jetpack'] or 'unknown'} (L4T {device['l4t']})" if device["l4t"] else f"driver {device['driver']}"
    ways = {"none": "no way to it for containers: see `windlass check`"}
    gpus = ", ".join(
        f"{gpu['name']} (SM {gpu['sm']}{', ' + format_bytes(gpu['memory_bytes']) if gpu['memory_bytes'] else ''})"
        for gpu in device["gpus"]
    )
    return [
        f"box      {escape(device['board'] or device['architecture'])}, {escape(system)}, "
        f"CUDA {escape(device['cuda'] or 'unknown')}",
        f"gpu      {escape(gpus)}, {ways.get(device['access'], 'by ' + device['access'])}{_charged(device)}",
    ]


def _charged(device: DeviceStatus) -> str:
    if any(gpu["memory_bytes"] for gpu in device["gpus"]):
        return ""
    said = {True: "its memory counts against a container's limit", False: "a container's limit does not cover its memory"}
    charged = device["gpu_memory_charged"]
    return "" if charged is None else f"; {said[charged]}"


def _speed(disk: DiskStatus) -> str:
    """Say how fast the disk is, and whether it could be faster."""
    link, measured = disk["link"], disk["read_bytes_per_s"]
    lanes = f", {link['width']} of {link['most_width']} lanes at {escape(link['speed'])}" if link else ""
    day = (disk["measured_at"] or "").partition("T")[0]
    return lanes + (f", reads {format_bytes(measured)}/s (measured {day})" if measured else "")


def plan_lines(plan: Plan) -> list[str]:
    """Say what a request for a model would do now: `windlass plan`."""
    answers = {"start": "it starts at once", "wait": "it waits, and starts then", "refuse": "it is refused"}
    name = escape(plan["model"])
    headline = f"{name} is resident; nothing has to happen" if plan["resident"] else f"{name}: {answers[plan['answer']]}"
    return [
        headline,
        f"needs    {format_bytes(plan['footprint_bytes'])} ({escape(plan['footprint_source'])})",
        f"budget   {format_bytes(plan['budget_bytes'])}, of which {format_bytes(plan['free_bytes'])} free",
        *(
            f"gpu {one['index']:<4} {format_bytes(one['bytes'])} of {format_bytes(one['budget_bytes'])}, of which "
            f"{format_bytes(one['free_bytes'])} free"
            for one in plan["gpus"]
        ),
        *(f"evicts   {escape(one['model'])} ({format_bytes(one['bytes'])}): {escape(one['why'])}" for one in plan["evict"]),
        *([] if plan["resident"] else [f"load     about {format_seconds(plan['load_s'])}"]),
        f"because  {escape(plan['reason'])}",
        *_choice(plan),
    ]


def _choice(plan: Plan) -> list[str]:
    """Say why a model has its engine, and why it has none of the others; nothing where that follows from its folder."""
    choice = plan["engine_choice"]
    if choice is None:
        return []
    others = (f"not      {escape(one['engine'])}: {escape(one['reason'])}" for one in choice["others"])
    return [f"engine   {escape(plan['engine'])}: {escape(choice['reason'])}", *others]


def keys_table(keys: Sequence[KeyRow]) -> Table:
    """Show the API keys, without their secrets."""
    table = _table("id", "name", "scopes", ">requests a minute", "made", "revoked")
    for key in sorted(keys, key=lambda one: one["created_at"]):
        limit = key["rate_limit_per_min"]
        table.add_row(
            escape(key["id"]),
            escape(key["name"] or _NOTHING),
            escape(", ".join(key["scopes"])),
            "as configured" if limit is None else str(limit),
            escape(key["created_at"]),
            escape(key["revoked_at"] or _NOTHING),
        )
    return table


def changed_line(changed: Changed) -> str:
    """Say what loading or unloading did."""
    took = f" after {format_seconds(changed['seconds'])}" if changed["seconds"] else ""
    held_bytes = changed.get("bytes")
    held = f", {format_bytes(held_bytes)}" if held_bytes else ""
    return f"{escape(changed['model'])} is {colored(changed['state'])}{took}{held}"


def findings_lines(findings: Sequence[Finding]) -> list[str]:
    """Show what `windlass check` found, errors first, each with the command that helps."""
    if not findings:
        return [f"{colored('ok')}: no problem found"]
    lines = []
    for finding in findings:
        lines.append(f"{colored(finding.severity.value)}: {escape(finding.subject)}: {escape(finding.text)}")
        lines.extend(f"    {escape(line)}" for line in finding.fix.splitlines())
    numbers = {one: sum(finding.severity is one for finding in findings) for one in Severity}
    counts = ", ".join(f"{number} {one.value}{'s' if number > 1 else ''}" for one, number in numbers.items() if number)
    names = dict.fromkeys(finding.remedy.name for finding in findings if finding.remedy)
    cured = [f"`windlass doctor` shows what it would do about {', '.join(names)}"] if names else []
    return [*lines, "", f"found {counts}", *cured]


def device_line(device: Device) -> str:
    """Say in one line what the box is."""
    release = f"JetPack {device.jetpack or 'unknown'} (L4T {device.l4t})" if device.l4t else ""
    driver = f"driver {device.driver} (CUDA {device.cuda})" if device.driver else ""
    gpus = ", ".join(f"{gpu.name} ({format_bytes(gpu.memory_bytes)})" if gpu.memory_bytes else gpu.name for gpu in device.gpus)
    access = f"GPU {gpus}, {_ACCESS[device.access]}" if gpus else "no GPU"
    what = (device.board or device.architecture or "unknown", release, driver, access)
    return f"box      {escape(', '.join(part for part in what if part))}"


def _table(*headings: str) -> Table:
    """Make a table; a heading that starts with `>` is a column of figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    return table


def _bytes(count_bytes: int | None) -> str:
    return _NOTHING if count_bytes is None else format_bytes(count_bytes)


def _seconds(duration_s: float | None) -> str:
    return _NOTHING if duration_s is None else format_seconds(duration_s)


def _counts(words: Iterable[str]) -> str:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(found.items()))


def _exit(exit_status: ExitStatus | None) -> str:
    if exit_status is None:
        return _NOTHING
    detail = f": {exit_status['detail']}" if exit_status["detail"] else ""
    return escape(f"{exit_status['cause'].replace('_', ' ')} ({exit_status['code']}){detail}")


def _queue(queue: Sequence[WaiterStatus]) -> str:
    if not queue:
        return "empty"
    oldest = max(queue, key=lambda waiter: waiter["waiting_s"])
    return (
        f"{len(queue)} waiting; the oldest for {format_seconds(oldest['waiting_s'])}, "
        f"for {escape(oldest['model'])}, and {format_seconds(oldest['bound_s'])} more at most"
    )


def _pace(pace: PaceStatus) -> list[str]:
    mode = f"mode {escape(pace['mode'])}" if pace["mode"] else ""
    if not pace["reasons"]:
        return [f"pace     full speed, {mode}"] if mode else []
    headline = f"pace     {pace['factor']:.0%} of full speed" + (f", {mode}" if mode else "")
    return [headline, *(f"         {escape(reason)}" for reason in pace["reasons"])]


def _transitions(status: Status) -> list[str]:
    return [f"{one['action']} of {one['model']} for {format_seconds(one['seconds'])}" for one in status["transitions"]]
