"""A server that listens on TCP alone, behind the programs that come before such a server in an engine's image."""
