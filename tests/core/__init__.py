"""What the tests of the pure core share: an engine and callers made of plain values."""
