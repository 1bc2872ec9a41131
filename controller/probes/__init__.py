"""
What this box is and how it is doing: memory and pressure, temperature and power, disk and processors.

Readings are values; what a box does not tell is `None` or missing, never an error. `root` is where `/proc` and `/sys` are sought.
"""
