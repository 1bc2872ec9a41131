"""
What our image adds to NVIDIA's package: its server finds the engine that was built for it, and code for other devices is gone.

    __main__   the server: an engine file put where its cache would be, then its own command line
    bundle     that: links to what is mounted to be read
    slim       at the making of the image: the native code that stays
"""
