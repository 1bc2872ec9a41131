"""What a bundle of models may hold, and what is taken of it."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    # bundles/layout
    Mutant("a name climbs out of its folder", "bundles/layout", 'if not piece or piece.startswith("."):', "if not piece:"),
    Mutant("a name begins at the root", "bundles/layout", 'if not piece or piece.startswith("."):', 'if piece.startswith("."):'),
    Mutant("a name need not be text", "bundles/layout", "not piece.isprintable() or ", ""),
    Mutant("a name that no stick takes", "bundles/layout", "_FORBIDDEN & set(piece) or ", ""),
    Mutant("a name that a stick shortens", "bundles/layout", ' or piece.endswith((" ", "."))', ""),
    Mutant("letters are counted, not bytes", "bundles/layout", "len(piece.encode()) > PIECE_BYTES", "len(piece) > PIECE_BYTES"),
    Mutant("folders without end", "bundles/layout", "if len(pieces) > DEPTH:", "if False:"),
    Mutant("capitals make another name", "bundles/layout", ".casefold()", ""),
    Mutant("accents make another name", "bundles/layout", 'unicodedata.normalize("NFC", path)', "path"),
    Mutant("a file below a file", "bundles/layout", "range(1, len(pieces))", "range(1, 1)"),
    Mutant("an empty file has no part", "bundles/layout", "if rest or not whole else", "if rest else"),
    Mutant("one part too many", "bundles/layout", "((rest,) if rest or not whole else ())", "(rest,)"),
    Mutant("a whole file is a part", "bundles/layout", "(name,) if count == 1 else ", ""),
    # bundles/judging
    Mutant(
        "nothing is for every device",
        "bundles/judging",
        "item.device not in (ANY_DEVICE, wish.device)",
        "item.device != wish.device",
    ),
    Mutant("everything is for every device", "bundles/judging", "item.device not in (ANY_DEVICE, wish.device)", "False"),
    Mutant("a box that nobody knows is none", "bundles/judging", "if wish.device and item", "if item"),
    Mutant("what was not asked for is taken", "bundles/judging", "if wish.only and model not in wish.only:", "if False:"),
    Mutant(
        "an engine file is asked for by its own name",
        "bundles/judging",
        "item.model if isinstance(item, EngineItem) else item.name",
        "item.name",
    ),
    Mutant("engine files cannot be left", "bundles/judging", "if not wish.engine_files:", "if False:"),
    Mutant(
        "an engine file is put in the place of one",
        "bundles/judging",
        "if isinstance(item, EngineItem):\n        # Its",
        "if False:\n        # Its",
    ),
    Mutant("a model takes the place of another unasked", "bundles/judging", "if not wish.replace:", "if False:"),
    Mutant("what is to stay is refused", "bundles/judging", "if wish.keep:", "if False:"),
    Mutant("an engine file comes with another's model", "bundles/judging", "or verdict.item.model not in other:", "or True:"),
    Mutant("what was there brings no engine file", "bundles/judging", "REPLACED, State.THERE)", "REPLACED)"),
    Mutant("other content counts as the same", "bundles/judging", "elif known.item == verdict.item:", "elif True:"),
    Mutant("what is left claims its name", "bundles/judging", " if verdict.is_taken else verdict\n", "\n"),
    Mutant("a clash is passed over", "bundles/judging", "    if clashing:", "    if False:"),
    Mutant("an engine file is a model's name", "bundles/judging", ' if verdict.at.startswith(f"{MODELS}/")}', "}"),
    Mutant("nothing stays free", "bundles/judging", "missing_bytes + SPARE_BYTES > free_bytes", "missing_bytes > free_bytes"),
    Mutant("refused when it just fits the disk", "bundles/judging", "SPARE_BYTES > free_bytes", "SPARE_BYTES >= free_bytes"),
    Mutant("what is there needs room again", "bundles/judging", "if missing_bytes and missing_bytes", "if missing_bytes"),
)
