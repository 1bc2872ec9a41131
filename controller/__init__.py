"""Windlass: many models on disk, a few in memory, one API in front."""

__version__ = "0.1.0"
