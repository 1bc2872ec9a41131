"""How a model is run, and by which engine."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # engines/tensorrt_edge_llm
    Mutant(
        "an Orin computes with anything",
        "engines/tensorrt_edge_llm",
        "if device.family is Family.ORIN and not needed <= _ON_ORIN:",
        "if device.family is Family.ORIN and not needed:",
    ),
    Mutant(
        "39.20 is 39.2",
        "engines/tensorrt_edge_llm",
        'device.l4t.startswith(f"{_RELEASE}.")',
        "device.l4t.startswith(_RELEASE)",
    ),
    Mutant(
        "the server is started for a longer prompt than was built for",
        "engines/tensorrt_edge_llm",
        "return min(wanted or context_tokens, context_tokens)",
        "return wanted or context_tokens",
    ),
    # engines/base
    Mutant(
        "a field that nobody has heard of is sent to a server with a closed list",
        "engines/base",
        "return refused if one.taken_fields is None else refused | (asked - one.taken_fields - one.ignored_fields)",
        "return refused",
    ),
    # engines/gpus
    Mutant("old drivers will do", "engines/gpus", "int(major) < LEAST_DRIVER_CUDA", "int(major) < 0"),
    Mutant("the driver's context is forgotten on cards", "engines/gpus", "there_bytes + CARD_CONTEXT_BYTES", "there_bytes"),
    Mutant("the driver's context is forgotten on a Jetson", "engines/gpus", " + UNIFIED_CONTEXT_BYTES", ""),
    Mutant("cards take equal shares", "engines/gpus", "round(100 * part / total_bytes)", "round(100 / len(parts_bytes))"),
    # engines/tensorrt_llm
    Mutant("old cards will do", "engines/tensorrt_llm", "too_old(device, LEAST_SM)", "too_old(device, 0)"),
    Mutant("any driver will do", "engines/tensorrt_llm", "_version(device.cuda) < LEAST_CUDA", "False"),
    Mutant("the server takes the whole card", "engines/tensorrt_llm", '"max_tokens": kv_tokens(', '"most_tokens": kv_tokens('),
    Mutant("heads are divided", "engines/tensorrt_llm", " and header.kv_heads % cards == 0", ""),
    Mutant(
        "one card is enough for every model",
        "engines/tensorrt_llm",
        '"--tp_size", str(max(1, len(model.cards)))',
        '"--tp_size", "1"',
    ),
    Mutant(
        "it is called after its mount",
        "engines/tensorrt_llm",
        "    served = SERVED / model.served_name\n",
        "    served = SERVED\n",
    ),
    # engines/tensorrt_llm_jetson
    Mutant("any Orin will do", "engines/tensorrt_llm_jetson", "not device.module.startswith(_MODULE)", "False"),
    Mutant("any Jetson Linux will do", "engines/tensorrt_llm_jetson", "device.l4t not in _RELEASES", "not device.l4t"),
    Mutant("GPTQ is converted for any family", "engines/tensorrt_llm_jetson", ' and header.architecture == "llama")', ")"),
    Mutant(
        "GPTQ is quantised once more",
        "engines/tensorrt_llm_jetson",
        "    if is_gptq(header):\n        stored",
        "    if False:\n        stored",
    ),
    Mutant(
        "long prompts do not pass",
        "engines/tensorrt_llm_jetson",
        "str(max(context_tokens, parallel))),\n    )",
        "str(parallel)),\n    )",
    ),
    Mutant("all callers share one cache", "engines/tensorrt_llm_jetson", "tokens = parallel * -(", "tokens = -("),
    # engines/llama_cpp
    Mutant(
        "a GPU that is not there is nobody's error",
        "engines/llama_cpp",
        '*("--device", ",".join(f"CUDA{index}" for index in range(cards))),',
        "",
    ),
    Mutant(
        "a GPU that no container can use is used",
        "engines/llama_cpp",
        "return gpus.computes(device) and option",
        "return bool(device.gpus) and option",
    ),
    Mutant("no layers are all layers", "engines/llama_cpp", '"gpu_layers") > 0', '"gpu_layers") >= 0'),
    # engines/llama_sizes
    Mutant("embeddings are on the card", "engines/llama_sizes", " + left_bytes + _embedding_bytes(header)", " + left_bytes"),
    Mutant(
        "pages on the way to a GPU are nobody's",
        "engines/llama_sizes",
        'if load.gpu_load == "cached" else 0',
        'if load.gpu_load == "none" else 0',
    ),
    Mutant(
        "what stays behind is on the card",
        "engines/llama_sizes",
        "    weights_bytes, kv_bytes = share * header.weights_bytes,",
        "    weights_bytes, kv_bytes = header.weights_bytes,",
    ),
    Mutant("a matrix of scores is free", "engines/llama_sizes", " + scores_bytes", ""),
    # engines/choice
    Mutant(
        "who failed is first again",
        "engines/choice",
        "    return failed, latest, bool(one.shortage)",
        "    return latest, bool(one.shortage)",
    ),
    Mutant("all have failed, and round it goes", "engines/choice", "-one.setback.at_s if one.setback else 0.0", "0.0"),
    Mutant("too large is no flaw", "engines/choice", "latest, bool(one.shortage), bool(one.lacks)", "latest, bool(one.lacks)"),
    Mutant(
        "what is asked for weighs nothing",
        "engines/choice",
        "bool(one.shortage), bool(one.lacks), names",
        "bool(one.shortage), names",
    ),
    Mutant(
        "a hair's breadth decides", "engines/choice", "fastest.tokens_per_s < FASTER * first.tokens_per_s", "fastest is first"
    ),
    Mutant("who never ran is slow", "engines/choice", "if not first.tokens_per_s or fastest", "if fastest"),
    Mutant("speed makes up for all", "engines/choice", '== (first.setback is None, "", "")]', "or True]"),
    Mutant("who has answered is left", "engines/choice", '"" if first.proven else', '"" if first.setback else'),
    Mutant("a small board is a large one", "engines/choice", "if box.memory_bytes <= SMALL_BYTES:", "if False:"),
    Mutant("a GPU that nobody can use decides", "engines/choice", "if not box.device.has_gpu:", "if not box.device.gpus:"),
)
