"""
What makes engine files out of checkpoints and adapters: `python -m builder convert|merge|adapter`.

One command a step, run in a sealed container: it reads one folder, writes another, and ends. llama.cpp's own converter, which the
image brings from its source release, knows the model families; what is here checks, prepares and merges.
"""
