"""A box on a virtual clock: models, requests, a disk and an accelerator, under the real scheduler or a simple policy."""
