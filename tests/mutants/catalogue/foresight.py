"""What is expected: forecast, read-ahead, choice of a model."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # readahead
    Mutant(
        "what is cached is read",
        "readahead",
        "return max(0, self.weights_bytes - self.cached_bytes)",
        "return self.weights_bytes",
    ),
    Mutant("a cold model is mapped", "readahead", "cached_bytes >= WARM_SHARE * weights_bytes", "cached_bytes >= 0"),
    Mutant("a warm model is read", "readahead", "cached_bytes >= WARM_SHARE * weights_bytes", "cached_bytes > weights_bytes"),
    Mutant("an engine that reads directly is read for", "readahead", "if reads_directly:", "if False:"),
    Mutant(
        "residents' pages are pushed out",
        "readahead",
        "available_bytes - mapped_bytes - FLOOR_BYTES",
        "available_bytes - FLOOR_BYTES",
    ),
    Mutant(
        "nothing is left alone", "readahead", "available_bytes - mapped_bytes - FLOOR_BYTES", "available_bytes - mapped_bytes"
    ),
    Mutant("early reading of what is not to be read", "readahead", "if plan.mode is not LoadMode.READ_AHEAD:", "if False:"),
    # forecast
    Mutant("a turn serves twice as many", "forecast", "(line.parallel * per_turn)", "(line.parallel * per_turn * 2)"),
    Mutant("the caller does not count itself", "forecast", "own.waiting + own.busy + 1)", "own.waiting + own.busy)"),
    Mutant("others are never in the way", "forecast", "if patience_s is None and own.free:", "if True:"),
    Mutant("a gated worker is promised", "forecast", "self.resident and not self.gated and", "self.resident and"),
    Mutant("a full worker is promised", "forecast", " and self.busy < self.parallel", ""),
    Mutant("the longest request is forgotten", "forecast", "turns * (quantum_s + request_limit_s + ", "turns * (quantum_s + "),
    Mutant(
        "the bound counts on all replicas",
        "forecast",
        "callers / (line.parallel * per_turn)",
        "callers / (line.parallel * line.replicas * per_turn)",
    ),
    # router
    Mutant(
        "whoever serves the other path that will do is not eligible",
        "router",
        "if ask.api_path not in spec.api_paths and ask.also not in spec.api_paths:",
        "if ask.api_path not in spec.api_paths:",
    ),
)
