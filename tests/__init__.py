"""The tests: unit, contract, engine, gateway and system, each ring with its own needs."""
