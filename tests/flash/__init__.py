"""Boards are flashed here, with programs that stand in for NVIDIA's: they have its names and options, and fail where it would."""
