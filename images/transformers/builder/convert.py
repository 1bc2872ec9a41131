"""A checkpoint becomes a GGUF."""

from pathlib import Path

from builder import checkpoint, converter


def convert(path: Path, *, stored: str, out: Path) -> None:
    """
    Convert the checkpoint in a folder; tensors are read and written one at a time.

    Raises:
        BuildError, LoadError: it cannot be converted, with the cause.

    """
    config = checkpoint.check(path)
    checkpoint.check_tokenizer(path)
    conversion = converter.prepare()
    converter.check_family(conversion, config)
    converter.run("convert_hf_to_gguf.py", [str(path), "--outtype", stored, "--outfile", str(out)])
