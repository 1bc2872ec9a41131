"""Engine files: what is built, which is next, whether there is room."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # engines/builds/recipe
    Mutant(
        "four bits are made from eight",
        "engines/builds/recipe",
        "stored = wanted if last else sixteen_bits(header)",
        "stored = Quantization.Q8_0",
    ),
    Mutant(
        "an adapter is forgotten on the way to eight bits",
        "engines/builds/recipe",
        "last = len(peft) == len(source.adapters) and",
        "last =",
    ),
    Mutant("every bit more is worth a build", "engines/builds/recipe", "size_bytes > WORTHWHILE * header.weights_bytes", "False"),
    Mutant(
        "a merged model is no smaller and so not made",
        "engines/builds/recipe",
        "if not source.adapters and size_bytes",
        "if size_bytes",
    ),
    Mutant("a GGUF goes without a tokenizer", "engines/builds/recipe", "if not _TOKENIZERS & source.files:", "if False:"),
    Mutant("what lies between two steps takes no disk", "engines/builds/recipe", "self.scratch_bytes += leaves_bytes", "pass"),
    Mutant(
        "an adapter is merged and applied",
        "engines/builds/recipe",
        '            if header.format == "safetensors":\n                continue\n',
        "",
    ),
    # engines/builds/quantization
    Mutant(
        "rows fit every block", "engines/builds/quantization", "if kind in _SMALLER_BLOCKS and columns % _K_BLOCK:", "if False:"
    ),
    Mutant(
        "input and output always share a matrix",
        "engines/builds/quantization",
        "embeddings = embedding if shares_embedding(header) else 2 * embedding",
        "embeddings = embedding",
    ),
    Mutant(
        "bfloat16 is good enough for all",
        "engines/builds/quantization",
        "Quantization.F16 if header.stored in _PRECISE else Quantization.BF16",
        "Quantization.BF16",
    ),
    Mutant(
        "the output is stored like the rest",
        "engines/builds/quantization",
        '_bits("q6_k", matrices.width)',
        "_bits(usual, matrices.width)",
    ),
    Mutant(
        "no layer gets more bits",
        "engines/builds/quantization",
        'better = "q6_k" if quantization is Quantization.Q4_K_M else usual',
        "better = usual",
    ),
    Mutant("the tokenizer weighs nothing", "engines/builds/quantization", "header.vocabulary * _TOKENIZER_ENTRY_BYTES + ", ""),
    # forge/room
    Mutant("what is kept leaves", "forge/room", "if not file.kept and (may_displace", "if (may_displace"),
    Mutant("files that are wanted leave unasked", "forge/room", "(may_displace or not file.wanted)", "True"),
    Mutant("the most valuable file leaves", "forge/room", "(file.wanted, file.value,", "(file.wanted, -file.value,"),
    Mutant("wanted files leave first", "forge/room", "key=lambda file: (file.wanted,", "key=lambda file: (not file.wanted,"),
    Mutant("nothing is kept free", "forge/room", "+ disk.keep_free_bytes - disk.free_bytes", "- disk.free_bytes"),
    Mutant("scratch takes no room", "forge/room", "kept_bytes + scratch_bytes + disk", "kept_bytes + disk"),
    Mutant("the budget of the disk is not kept", "forge/room", "0 if disk.budget_bytes is None else", "0 if True else"),
    # forge/tickets
    Mutant("what rests is taken up", "forge/tickets", "t.wanted and t.state not in RESTING and now >=", "t.wanted and now >="),
    Mutant("nobody waits for his next try", "forge/tickets", "not in RESTING and now >= t.retry_at_s]", "not in RESTING]"),
    Mutant(
        "what nobody wants is built",
        "forge/tickets",
        "[t for t in tickets if t.wanted and t.state not in RESTING and",
        "[t for t in tickets if t.state not in RESTING and",
    ),
    Mutant("it never gives up", "forge/tickets", "if self.failures >= most else", "if False else"),
    Mutant("the same limit kills again", "forge/tickets", "self.growth *= MORE_MEMORY", "pass"),
    Mutant("it fills the disk again and again", "forge/tickets", "int((self.done_bytes - self.total_bytes) * MORE_DISK)", "0"),
    Mutant("the adopted one is left lying", "forge/tickets", "        not ticket.adopted,\n", ""),
    Mutant("nobody is waited for", "forge/tickets", "        not ticket.asked,\n", ""),
    Mutant("a file that arrives is not looked at", "forge/tickets", "if removed or (arrived and", "if removed or (False and"),
    Mutant(
        "a build that rests is begun again by every look",
        "forge/tickets",
        "arrived = order.file is not None and self.order.file is None",
        "arrived = True",
    ),
    Mutant(
        "an older file is the end", "forge/tickets", "if matches and file.fingerprint == self.order.fingerprint:", "if matches:"
    ),
    Mutant(
        "a file that arrived meanwhile is forgotten", "forge/tickets", "file=None if spoilt else self.order.file", "file=None"
    ),
    Mutant(
        "a spoilt file is compared for ever", "forge/tickets", "file=None if spoilt else self.order.file", "file=self.order.file"
    ),
    Mutant("builds come before comparisons of older files", "forge/tickets", "order.to_compare is None,", "order.file is None,"),
    # engines/builds/values
    Mutant("everything is compiled for a device", "engines/builds/values", "any(step.gpu for step in self.steps)", "True"),
)
