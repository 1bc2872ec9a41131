"""A worker without a model: the same sockets and paths as a real one, and faults on demand."""
