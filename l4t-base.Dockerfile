# What every GPU image for a Jetson stands on, for the JetPack release of the box (JETPACK), from the distribution's own image (BASE).
#
#   system   the distribution and our users: what does not need CUDA, and stands on any Debian or Ubuntu
#   runtime  and CUDA's run-time library and TensorRT
#   build    and NVIDIA's compiler, for images that are compiled on the box
#
# The driver is in none of them: the container toolkit brings libcuda.so.1 and its like from the host, of the host's release.
ARG BASE
FROM ${BASE} AS system
LABEL windlass.stage=l4t-base
# Documentation and translations that no container reads; /etc/nv_tegra_release is mounted where an engine asks for it.
RUN printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' >/etc/dpkg/dpkg.cfg.d/windlass \
    && printf 'path-include=/usr/share/doc/*/copyright\n' >>/etc/dpkg/dpkg.cfg.d/windlass \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# The same users as in the plain base: workers and gateway share a group, and so the sockets between them.
RUN getent group windlass || groupadd --gid 64000 windlass; \
    for user in worker:64001 gateway:64002; do \
        getent passwd "${user%:*}" || useradd --uid "${user#*:}" --gid 64000 --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "${user%:*}" || exit 1; \
    done

FROM system AS nvidia
ARG JETPACK
COPY jetpack-${JETPACK} /usr/share/windlass/jetpack
COPY install.sh /usr/share/windlass/
# NVIDIA's key for its Jetson repositories, fingerprint 3C6D 1FF3 100C 8C3A BB08 69C0 E654 3461 A999 6195, by the hash of its file.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && curl --fail --silent --show-error --location --output /usr/share/keyrings/nvidia-jetson.asc \
        https://repo.download.nvidia.com/jetson/jetson-ota-public.asc \
    && echo '576f852981855e5c6cfb9b625ffb51b984ca451f1181b2e70435b005034fad55  /usr/share/keyrings/nvidia-jetson.asc' \
        >/tmp/key.sha256 \
    && sha256sum --check --strict /tmp/key.sha256 \
    && rm /tmp/key.sha256 \
    && apt-get purge --yes --auto-remove curl \
    && awk '$1 == "repository" {print "deb [arch=arm64 signed-by=/usr/share/keyrings/nvidia-jetson.asc] " $3 " " $2 " main"}' \
        /usr/share/windlass/jetpack >/etc/apt/sources.list.d/nvidia-jetson.list

FROM nvidia AS runtime
RUN /usr/share/windlass/install.sh /usr/share/windlass/jetpack runtime python3 \
    && ldconfig \
    && python3 -c 'from ctypes.util import find_library as f; assert f("cudart") and f("nvinfer"), "CUDA or TensorRT is not found"'

FROM nvidia AS build
RUN /usr/share/windlass/install.sh /usr/share/windlass/jetpack build build-essential cmake ninja-build \
    && /usr/local/cuda/bin/nvcc --version
