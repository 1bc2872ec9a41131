"""The HTTP side: it speaks with callers and with workers, and asks the controller who may speak with whom."""
