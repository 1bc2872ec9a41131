"""
Write the appliance onto a board or a disk: `make flash BOARD=…`, `make flash-kit BOARD=…`.

Boards and NVIDIA's releases are data (`appliance/boards/`). What is done is a list of commands made by pure functions;
`--dry-run` prints the list. A run that was cut is called again and goes on where that is safe.
"""
