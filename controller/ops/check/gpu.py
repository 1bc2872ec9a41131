"""How containers get at a GPU, and whether driver, toolkit and kernel fit together."""

from collections.abc import Iterable
from typing import Final

from controller.device import Device, Family, GpuAccess
from controller.engines import ENGINES, gpus
from controller.ops.check.values import Facts, Finding, Severity, curable, note, warning
from controller.ops.remedy import Holds, Lacks, Need, Proof, Remedy, Run, Write
from controller.ops.targets import JETPACKS, guess_target
from controller.probes.condition import CDI_KIND, DAEMON_CONFIGURATION, ENGINE_DROP_INS, NO_RAW_TABLE, TOOLKIT

RUNTIME: Final = "nvidia"
RAW_TABLE_ENGINE: Final = 28
"""From this major version on, Docker wants the kernel's table `raw` where a container publishes a port."""
RAW_TABLE_FILE: Final = f"{ENGINE_DROP_INS}/windlass-raw-table.conf"


def access(facts: Facts) -> Iterable[Finding]:
    """Judge whether a container can use the GPU that is there."""
    device, info = facts.device, facts.engine.info
    if not device.gpus or device.access is not GpuAccess.NONE or info is None:
        return
    what = f"no container can use the GPU ({device.gpus[0].name}): the container engine has neither NVIDIA's runtime nor CDI"
    if facts.condition.toolkit:
        yield curable("GPU", f"{what}; models run on the processors", _runtime(), also="sudo systemctl restart docker")
        return
    hint = "not verified on a board" if device.is_jetson else "from NVIDIA's own package repository"
    yield warning(
        "GPU",
        f"{what}, since {TOOLKIT} is not installed; models run on the processors",
        f"sudo apt-get install {TOOLKIT}   ({hint})\n" + "\n".join((*_runtime().commands, "sudo systemctl restart docker")),
    )


def images(facts: Facts) -> Iterable[Finding]:
    """Say so if containers could use the GPU and the workers do not, since their images are made for processors."""
    device = facts.device
    if device.has_gpu and facts.settings.use_gpu and facts.tried.uses_gpu is False:
        made_for = "cuda" if device.family is Family.DISCRETE else device.family.value
        yield warning(
            "GPU",
            f"containers can use the GPU ({device.gpus[0].name}), and the workers do not: the images of what runs are made for "
            "processors",
            f"make images DEVICE={made_for}{_release(device)} && make run",
        )


def _release(device: Device) -> str:
    """Name a Jetson's release where images are made for several."""
    target = guess_target(device.family, device.l4t)
    return f" JETPACK={target.jetpack}" if target and target.jetpack != JETPACKS[target.device][0] else ""


def specifications(facts: Facts) -> Iterable[Finding]:
    """Judge the files that name GPUs for the container engine."""
    device = facts.device
    for one in facts.condition.specifications:
        if one.driver and device.driver and one.driver != device.driver:
            why = f"it was made for driver {one.driver}, and the driver is {device.driver}"
            proofs: tuple[Proof, ...] = (Holds(path=one.path, text=f"libcuda.so.{device.driver}"),)
        elif one.gone:
            why = f"it names {', '.join(one.gone[:3])}, which {'are' if len(one.gone) > 1 else 'is'} not there"
            proofs = tuple(Lacks(path=one.path, text=node) for node in one.gone)
        else:
            continue
        yield curable(
            "CDI",
            f"{one.path} is out of date: {why}; containers that ask for a GPU will not start",
            _cdi(device, one.path, *proofs),
        )


def cards(facts: Facts) -> Iterable[Finding]:
    """Judge cards that are too old to compute with."""
    device = facts.device
    if device.family is Family.DISCRETE and (old := gpus.too_old(device)):
        names = ", ".join(f"{gpu.name} (SM {gpu.sm or 'unknown'})" for gpu in old)
        yield warning(
            "cards",
            f"{names}: the images for cards hold code for SM {gpus.LEAST_SM} (Turing) and later, so no model uses any card",
            "take the old card out, or hide it from the container engine",
        )


def engines_for(facts: Facts) -> Iterable[Finding]:
    """Say so if no TensorRT engine runs on this Jetson: llama.cpp is what is left for its GPU."""
    device = facts.device
    if not device.is_jetson or device.access is GpuAccess.NONE:
        return
    refusals = {name: engine.refusal(device) for name, engine in ENGINES.items() if name.startswith("tensorrt-")}
    if refusals and all(refusals.values()):
        yield note(
            "engines",
            f"no TensorRT engine runs here: {'; '.join(f'{name}: {why}' for name, why in sorted(refusals.items()))}",
            "llama-cpp uses the GPU of this board; tensorrt-edge-llm comes with JetPack 7.2 (L4T 39.2)",
        )


def driver(facts: Facts) -> Iterable[Finding]:
    """Judge the driver of cards."""
    device = facts.device
    if gpus.driver_too_old(device):
        yield warning(
            "driver",
            f"driver {device.driver} is of CUDA {device.cuda}, and images for cards are made with CUDA {gpus.LEAST_DRIVER_CUDA}, "
            "which it does not run: models run on the processors",
            "install a driver of release 580 or newer (on Ubuntu: sudo ubuntu-drivers install), and reboot",
        )


def raw_table(facts: Facts) -> Iterable[Finding]:
    """Judge a kernel that lacks what newer engines want for published ports; our own containers publish none."""
    info = facts.engine.info
    version = info.version.partition(".")[0] if info else ""
    if facts.condition.raw_table is not False or not version.isdecimal() or int(version) < RAW_TABLE_ENGINE:
        return
    remedy = Remedy(
        name="raw-table",
        steps=(
            Write(path=RAW_TABLE_FILE, text=f'[Service]\nEnvironment="{NO_RAW_TABLE}"\n'),
            Run(argv=("systemctl", "daemon-reload")),
        ),
        proofs=(Holds(path=RAW_TABLE_FILE, text=NO_RAW_TABLE),),
        undo=f"sudo rm {RAW_TABLE_FILE} && sudo systemctl daemon-reload",
        need=Need.ENGINE,
        consent="without that table, hosts on the same network can reach ports that containers publish on loopback",
    )
    assert info is not None
    yield curable(
        "iptable_raw",
        f"this kernel has no iptable_raw, which Docker {info.version} wants for containers that publish ports; those of Windlass "
        "publish none and are not affected (not verified on a board)",
        remedy,
        also="sudo systemctl restart docker   (or run such containers with --network host)",
        severity=Severity.NOTE,
    )


def _runtime() -> Remedy:
    return Remedy(
        name="nvidia-runtime",
        steps=(Run(argv=("nvidia-ctk", "runtime", "configure", "--runtime=docker")),),
        proofs=(Holds(path=DAEMON_CONFIGURATION, text="nvidia-container-runtime"),),
        undo=f"take `{RUNTIME}` out of `runtimes` in {DAEMON_CONFIGURATION}",
        need=Need.ENGINE,
    )


def _cdi(device: Device, path: str, *proofs: Proof) -> Remedy:
    mode = ("--mode=csv",) if device.family is Family.ORIN else ()
    return Remedy(
        name="cdi",
        steps=(Run(argv=("nvidia-ctk", "cdi", "generate", *mode, f"--output={path}")),),
        proofs=(Holds(path=path, text=CDI_KIND), *proofs),
        undo=f"sudo rm {path}",
    )
