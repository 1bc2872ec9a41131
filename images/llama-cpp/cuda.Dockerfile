# llama.cpp's server with its CUDA backend, and its quantiser and adapter merger, from the same source release as the CPU image.
#
# TOOLS has a C++ compiler's worth of packages to install from, and NVIDIA's compiler in /usr/local/cuda or as wheels in the build
# context. BASE is what the image stands on; both are of one distribution. The driver's own library, libcuda.so.1, is in neither: the
# container engine brings the host's, so the backend is linked against a stand-in with the same names.
ARG TOOLS
ARG BASE
FROM ${TOOLS} AS build
# The legacy builder keeps every stage it ever made; by this label the old ones are found and removed.
LABEL windlass.stage=llama-cpp
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential cmake ninja-build \
    && rm -rf /var/lib/apt/lists/*
COPY wheels/ /wheels/
# Wheels are archives; those of the compiler hold one tree, which lacks the names a linker looks for.
RUN set -- /wheels/*.whl; if [ -e "$1" ]; then \
        mkdir -p /tmp/unpacked && cd /tmp/unpacked && for wheel in "$@"; do cmake -E tar xf "$wheel" || exit 1; done \
        && mv nvidia/cu* /usr/local/cuda && chmod -R a+rX /usr/local/cuda && chmod a+x /usr/local/cuda/bin/* /usr/local/cuda/nvvm/bin/* \
        && rm -rf /tmp/unpacked && ln -s lib /usr/local/cuda/lib64 && cd /usr/local/cuda/lib \
        && for library in cudart cublas cublasLt; do ln -s lib$library.so.* lib$library.so; done; \
    fi \
    && /usr/local/cuda/bin/nvcc --version

COPY llama_cpp_python.tar.gz /src/
WORKDIR /src
RUN tar --extract --gzip --strip-components=3 --file llama_cpp_python.tar.gz --wildcards '*/vendor/llama.cpp/*' \
    && rm llama_cpp_python.tar.gz
# What the backend calls of the driver, by name alone: the stand-in is linked against, and stays behind.
# hadolint ignore=DL4006
RUN mkdir /driver \
    && grep --no-filename --only-matching --extended-regexp '\bcu[A-Z][A-Za-z]+\(' ggml/src/ggml-cuda/*.cu ggml/src/ggml-cuda/*.cuh \
        | sort --unique | sed 's/(/(void) {}/; s/^/void /' >/driver/driver.c \
    && gcc -shared -Wl,-soname,libcuda.so.1 -o /driver/libcuda.so /driver/driver.c
# The backends are libraries that the server loads where it can.
# Flash attention and CUDA graphs are in, since a small board is short of memory and slow at starting kernels; NCCL is out, since one
# worker has one GPU or splits by layers. Code is compiled for each GPU named (CUDA_ARCHITECTURES), because a sealed worker has
# nowhere to keep what the driver would compile, and would do it at every start.
ARG CUDA_ARCHITECTURES
RUN case "$(uname -m)" in aarch64) baseline=-DGGML_CPU_ARM_ARCH=armv8.2-a+fp16+dotprod ;; *) baseline=-DGGML_AVX2=ON ;; esac \
    && cmake -G Ninja -B /build \
        -DCMAKE_BUILD_TYPE=Release \
        -DBUILD_SHARED_LIBS=ON \
        -DCMAKE_SKIP_RPATH=ON \
        -DGGML_BACKEND_DL=ON \
        -DGGML_NATIVE=OFF "$baseline" \
        -DGGML_OPENMP=ON \
        -DGGML_CUDA=ON \
        -DGGML_CUDA_FA=ON \
        -DGGML_CUDA_GRAPHS=ON \
        -DGGML_CUDA_NCCL=OFF \
        -DGGML_CUDA_COMPRESSION_MODE=size \
        "-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES" \
        -DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc \
        -DCUDAToolkit_ROOT=/usr/local/cuda \
        -DCUDA_cuda_driver_LIBRARY=/driver/libcuda.so \
        -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF \
    && cmake --build /build --target ggml-cuda
RUN cmake --build /build --target llama-server ggml-cpu
# The quantiser and the adapter merger as the CPU image has them: the latter knows no backends that are loaded.
RUN case "$(uname -m)" in aarch64) baseline=-DGGML_CPU_ARM_ARCH=armv8.2-a+fp16+dotprod ;; *) baseline=-DGGML_AVX2=ON ;; esac \
    && cmake -G Ninja -B /tools \
        -DCMAKE_BUILD_TYPE=Release \
        -DBUILD_SHARED_LIBS=OFF \
        -DGGML_NATIVE=OFF "$baseline" \
        -DGGML_OPENMP=ON \
        -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF \
    && cmake --build /tools --target llama-quantize llama-export-lora
# What we change, after the long compilation. It applies exactly or not at all. The entry point refuses to begin without the driver:
# the server would go on without its GPU, slowly, and say so in one line of its log.
COPY notify.h include/
COPY notify.patch serve.c gpu-trial/trial.c ./
RUN patch --strip=1 --fuzz=0 --input=notify.patch \
    && cmake --build /build --target llama-server ggml-cpu \
    && gcc -O2 -Wall -Wextra -Werror -pthread -DDRIVER='"libcuda.so.1"' -o /build/bin/serve serve.c \
    && gcc -O2 -Wall -Wextra -Werror -o /build/bin/gpu-trial trial.c -ldl \
    && mkdir -p /out/bin /out/lib \
    && cp --no-dereference /build/bin/lib*.so* /out/lib/ \
    && mv /out/lib/libggml-cpu.so /out/lib/libggml-cuda.so /out/bin/ \
    && cp /build/bin/llama-server /build/bin/serve /build/bin/gpu-trial /tools/bin/llama-quantize /tools/bin/llama-export-lora \
        /out/bin/ \
    && find /out -type f -exec strip --strip-unneeded {} + \
    && install -D --target-directory=/out/lib "$(gcc -print-file-name=libgomp.so.1)" \
    && for library in cudart cublas cublasLt nvrtc nvrtc-builtins; do \
        for file in "/usr/local/cuda/lib64/lib$library".so.?? "/usr/local/cuda/lib64/lib$library".so.??.?; do \
            if [ -e "$file" ]; then cp --dereference "$file" /out/lib/ || exit 1; fi; \
        done; \
    done \
    && ls -l /out/bin /out/lib

FROM ${BASE}
COPY --from=build /out/ /usr/local/
RUN ldconfig
USER 64001:64000
ENTRYPOINT ["/usr/local/bin/serve", "/usr/local/bin/llama-server"]
