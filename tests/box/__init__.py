"""The scripts of a box, run against a world of stand-ins."""
