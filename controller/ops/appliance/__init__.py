"""The operating system image of a box: what it is made of, how its disk is laid out, and the commands that make and start it."""
