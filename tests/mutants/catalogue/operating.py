"""What is decided on the laptop: images, deploying, flashing, updating."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # ops/targets
    Mutant(
        "a laptop names its own processors",
        "ops/targets",
        'return "aarch64" if target.device in JETPACKS else machine',
        "return machine",
    ),
    Mutant("JetPack 6.1 is 6.2.2", "ops/targets", '((36, 0), "6.1")', '((36, 0), "6.2.2")'),
    Mutant("a release without images is taken", "ops/targets", " if jetpack in JETPACKS.get(family.value, ()) else None", ""),
    Mutant("the asked release is forgotten", "ops/targets", "jetpack=jetpack or (known[0]", "jetpack=(known[0]"),
    Mutant("wheels for a newer C library", "ops/targets", "range(self.glibc_minor, OLDEST", "range(self.glibc_minor + 1, OLDEST"),
    Mutant("a wish for one board is taken for another", "ops/targets", "if jetpack and jetpack not in known:", "if False:"),
    # ops/flash/boards
    Mutant("a board is flashed whatever is unknown", "ops/flash/boards", "if board.unknown:", "if False:"),
    # ops/flash/recovery
    Mutant("any board on the cable is flashed", "ops/flash/recovery", "if only.product not in board.usb:", "if False:"),
    Mutant("the first of two boards is flashed", "ops/flash/recovery", "if len(waiting) > 1:", "if False:"),
    Mutant("a running board is flashed", "ops/flash/recovery", "if one.product in IN_RECOVERY]", "]"),
    # ops/flash/archives
    Mutant("a damaged archive is used", "ops/flash/archives", "if wanted and wanted.lower() != got:", "if False:"),
    Mutant(
        "what only a list vouches for is not recorded",
        "ops/flash/archives",
        '(SHA-1 {listed})", record=True)',
        '(SHA-1 {listed})")',
    ),
    # ops/flash/commands
    Mutant("a secret is shown", "ops/flash/commands", "HIDDEN if one in self.secrets else shlex.quote(one)", "shlex.quote(one)"),
    # ops/flash/journal
    Mutant(
        "half a root file system is used",
        "ops/flash/journal",
        "step.restart_from if touched and step.restart_from else step.name",
        "step.name",
    ),
    Mutant("another input counts for nothing", "ops/flash/journal", ", step.inputs])", "])"),
    # ops/flash/layout
    Mutant("data lies behind the table", "ops/flash/layout", ".index(LAST)\n", ".index(LAST) + 1\n"),
    Mutant("the data partition stays small", "ops/flash/layout", "EXPAND | 0x8", "0x8"),
    Mutant("two partitions take the rest", "ops/flash/layout", "if int(attribute, 0) & EXPAND:", "if False:"),
    # ops/flash/disk
    Mutant("a mounted disk is written", "ops/flash/disk", "    if disk.mounts:", "    if False:"),
    Mutant("a volume's disk is written", "ops/flash/disk", "    if disk.holders:", "    if False:"),
    Mutant(
        "mounts of volumes do not count",
        "ops/flash/disk",
        "for part in parts for one in part",
        "for part in parts[:2] for one in part",
    ),
    Mutant("a part of a disk is written", "ops/flash/disk", "if disk.kind not in WHOLE:", "if False:"),
    Mutant("the image need not fit", "ops/flash/disk", "max(image_bytes, least_bytes)", "least_bytes"),
    # ops/deploy/layers
    Mutant(
        "a layer on another stack counts", "ops/deploy/layers", "for chain in chains(image.layers)}", "for chain in image.layers}"
    ),
    Mutant(
        "an image is its name",
        "ops/deploy/layers",
        "if (image.tag, image.layers) not in known",
        "if image.tag not in {tag for tag, _ in known}",
    ),
    Mutant("whole images are sent in part", "ops/deploy/layers", "set() if whole else {", "set() if False else {"),
    Mutant("a layer is sent as often as it is needed", "ops/deploy/layers", "tuple(dict.fromkeys(needed))", "tuple(needed)"),
    # ops/deploy/fit
    Mutant("a system on trial gets a release", "ops/deploy/fit", "if host.on_trial:", "if False:"),
    Mutant("a Jetson gets a PC's images unasked", "ops/deploy/fit", "elif host.l4t and guessed", "elif False and guessed"),
    Mutant("who wants a Jetson without its GPU gets none", "ops/deploy/fit", "host.l4t and guessed and not", "host.l4t and not"),
    Mutant("nothing stays free on a box", "ops/deploy/fit", "if free < wanted + SPARE_BYTES:", "if free < wanted:"),
    Mutant(
        "layers need their room once",
        "ops/deploy/fit",
        "(missing_bytes + kept_bytes, host.data_free_bytes)",
        "(missing_bytes, host.data_free_bytes)",
    ),
    Mutant("containerd keeps images once", "ops/deploy/fit", "(2 if host.whole_images else 1)", "1"),
    Mutant("what has come needs its room again", "ops/deploy/fit", "sent_bytes - arrived_bytes", "sent_bytes"),
    Mutant("any JetPack will do", "ops/deploy/fit", "and jetpack != target.jetpack", "and False"),
    Mutant("any processor will do", "ops/deploy/fit", "elif here[tag].architecture != host.architecture:", "elif False:"),
    Mutant("a box's own images do not count", "ops/deploy/fit", "        if tag in there:", "        if False:"),
    Mutant("sudo may ask", "ops/deploy/fit", "if not host.root and not host.sudo:", "if False:"),
    # ops/deploy/outcome
    Mutant(
        "a switch that failed at its end went well",
        "ops/deploy/outcome",
        "if now == version and code == 0:",
        "if now == version:",
    ),
    Mutant("a bad release is called untried", "ops/deploy/outcome", 'if found.startswith("bad"):', "if False:"),
    Mutant("a release refused ran before", "ops/deploy/outcome", 'found.startswith("bad") and code == NOT_BEGUN', "False"),
    # ops/deploy/inventory
    Mutant("an option is a box", "ops/deploy/inventory", 'not name.startswith("-") and ', ""),
    # ops/deploy/engine_settings
    Mutant("what somebody decided is decided anew", "ops/deploy/engine_settings", ' and "live-restore" not in there', ""),
    Mutant("an engine of a swarm does not start again", "ops/deploy/engine_settings", "if not swarm and ", "if "),
    Mutant("other runtimes are forgotten", "ops/deploy/engine_settings", '{**runtimes, "nvidia": NVIDIA}', '{"nvidia": NVIDIA}'),
    # ops/deploy/commands
    Mutant("a script is asked for a passphrase", "ops/deploy/commands", '"no" if may_ask else "yes"', '"no"'),
)
