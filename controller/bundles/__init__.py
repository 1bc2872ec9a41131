"""
Bundles: models and their engine files as a folder of plain files, for a stick or another box.

    PATH/windlass-bundle.json            what is in it: every file's size, time and SHA-256
    PATH/models/<name>/<file>            a model's folder, file by file
    PATH/engines/<fingerprint>/<file>    an engine file, its own manifest.json among its files

A file of more than `PART_BYTES` lies in parts, `<file>.001`, `<file>.002` and so on, since a stick with FAT32 holds nothing
larger; one after the other they are the file. The manifest is written after the files that it names are on the disk. So a folder
whose manifest names something has that whole, wherever `cp` or `rsync` takes it, and the hashes tell if it has not.

The times are kept to the nanosecond, which no stick does: they are part of what an engine file was built from, and with them it
is found by the box it comes to. Hashes tell damage, not who made a bundle: take one from whom you would take a model.
"""
