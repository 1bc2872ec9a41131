"""`python -m tests.devices`: write down anew what `windlass check` prints on each recorded box."""

import sys

from tests.devices import NAMES
from tests.devices.facts import GOLDEN, write_golden

if __name__ == "__main__":
    write_golden(NAMES)
    sys.stdout.write(f"written to {GOLDEN}; read the differences before they are kept\n")
