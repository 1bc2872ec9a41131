"""
From this machine onto a box, by ssh and rsync alone, without a registry.

    __main__   the verbs: deploy, rollback, provision, and what they exit with
    fleet      several boxes one after the other, until the first failure
    provision  a stock system becomes a box                                 effects
    steps      one box: check, lock, copy, switch, watch, tidy              effects
    lock link  one at a time; the only place where ssh and rsync are run    effects
    stock      the images of this machine, taken apart into layers          effects
    rehearsal  the same without the effects
    commands   every command line, as a list                                pure
    cargo layers host fit outcome inventory engine_settings errors          pure: values, and what is decided about them

What runs on the box besides its own package are the scripts beside this file: they are sent with every connection, so that a
box never has an older idea of them.
"""
