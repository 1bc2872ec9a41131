"""
Deliberate faults in the pure core, each of which the unit tests must find. `python -m tests.mutants` tries them all.

A fault that no test finds is a weak test or a dead clause.
"""
