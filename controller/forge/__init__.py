"""Builds: which is next, whether there is room for it, and the one that is under way."""
