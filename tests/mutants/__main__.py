"""`python -m tests.mutants [--jobs N] [PART OF A NAME...]`: try the faults and list those that no test has found."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import survives


def main() -> int:
    """Try the faults, and the core without one; return 0 if every fault was found and the core has none."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="how many to try at once")
    parser.add_argument("names", nargs="*", help="try only those whose module or name contains one of these")
    chosen = parser.parse_args()
    mutants = [m for m in MUTANTS if not chosen.names or any(n in f"{m.module}: {m.name}" for n in chosen.names)]
    began_s = time.monotonic()
    if not survives(None):
        sys.stderr.write("the tests fail without any mutant\n")
        return 1
    with ThreadPoolExecutor(chosen.jobs) as pool:
        results = zip(mutants, pool.map(survives, mutants), strict=True)
        survivors = [mutant for mutant, alive in results if alive]
    for mutant in survivors:
        sys.stderr.write(f"survived: {mutant.module}: {mutant.name}\n")
    took_s = time.monotonic() - began_s
    sys.stdout.write(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants killed in {took_s:.0f} s\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
