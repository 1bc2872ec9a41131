"""What a box is, how containers get at its GPU, and for which box images are made."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # drivers/gpus
    Mutant(
        "the default runtime gives GPUs to everybody",
        "drivers/gpus",
        'return {_VISIBLE: "void"} if RUNTIME in engine.runtimes else {}',
        "return {}",
    ),
    Mutant(
        "a runtime that is not there is asked",
        "drivers/gpus",
        "raise EngineError(_NO_WAY.format(device=device))",
        'by_runtime += ids.split(",")',
    ),
    Mutant(
        "a name that nobody knows is asked for",
        "drivers/gpus",
        "if engine.cdi_devices and name not in engine.cdi_devices:",
        "if False:",
    ),
    Mutant("only the last name is asked for", "drivers/gpus", "by_name.append(device)", "by_name = [device]"),
    # drivers/sealing
    Mutant("nobody may open the nodes", "drivers/sealing", "[str(group) for group in groups if group != GROUP_GID]", "[]"),
    # device
    Mutant("no way is a way", "device", "bool(self.gpus) and self.access is not GpuAccess.NONE", "bool(self.gpus)"),
    Mutant(
        "a part of a Jetson's GPU",
        "device",
        'chosen = "all" if self.unified or not indices else ""',
        'chosen = "" if indices else "all"',
    ),
    Mutant("all cards are given", "device", 'chosen = "all" if self.unified or not indices else ""', 'chosen = "all"'),
    Mutant("a measurement holds on every board", "device", 'what = self.module or "+"', 'what = "+"'),
    Mutant("a measurement holds for every release", "device", 'f"l4t{self.l4t}" if self.l4t', '"l4t" if self.l4t'),
    Mutant("any TensorRT runs an engine", "device", "{self.tensorrt or 'none'}", "{'some'}"),
    Mutant("one card speaks for all", "device", "dict.fromkeys(gpu.sm for gpu in self.gpus)", "dict.fromkeys([self.sm])"),
    Mutant("a card's memory is the box's", "device", "all(gpu.memory_bytes == 0 for gpu in self.gpus)", "True"),
)
