# The base of every Jetson GPU image: NVIDIA's L4T root file system, with the users and the group that images/base makes.
#
# L4T_BASE names the release that matches the board's JetPack; it is an argument, since the CUDA libraries of a container must be those of
# the board's driver. Not yet run on a Jetson.
#
#   docker build --build-arg L4T_BASE=... --file l4t-base.Dockerfile --tag windlass/l4t-base:local .
ARG L4T_BASE
FROM ${L4T_BASE}
RUN groupadd --gid 64000 windlass \
    && useradd --uid 64001 --gid 64000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin worker \
    && useradd --uid 64002 --gid 64000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway
