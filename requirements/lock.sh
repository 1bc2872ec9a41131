#!/usr/bin/env bash
# Write the locks anew, with the newest releases the ranges allow: `make lock`.
#
# run.lock and transformers.lock are for the images' Python and carry no markers, since pip reads markers as the machine that collects
# the wheels and not as the image that installs them; dev.lock is for any Python and machine this project is developed on.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

lock() {
    uv pip compile --quiet --upgrade --generate-hashes --no-annotate --no-header --no-emit-index-url "$@"
}

in_image="--python-version 3.11 --python-platform linux"
# shellcheck disable=SC2086 # two options, two values
lock $in_image pyproject.toml --output-file requirements/run.lock
# shellcheck disable=SC2086
lock $in_image requirements/transformers.in --overrides <(echo "torch; sys_platform == 'never'") \
    --output-file requirements/transformers.lock
# The same with torch's build for CUDA, which is the package index's own.
# shellcheck disable=SC2086
lock $in_image requirements/transformers.in --constraints requirements/transformers.lock \
    --output-file requirements/transformers-cuda.lock
# What llama.cpp's CUDA image is compiled with and stands on, pinned by hand: one release of NVIDIA's toolkit.
# shellcheck disable=SC2086
lock $in_image --no-deps requirements/cuda.in --output-file requirements/cuda.lock
# NVIDIA's package for a Jetson with JetPack 7.2, whose Python is another; the tests install it from the same lock.
lock --python-version 3.12 --python-platform aarch64-manylinux_2_39 images/tensorrt-edge-llm/requirements.in \
    --output-file requirements/tensorrt-edge-llm.lock
# The HTTP side of the server on TensorRT-LLM 0.12, for the Python of JetPack 6.1.
lock --python-version 3.10 --python-platform aarch64-manylinux_2_35 images/tensorrt-llm-jetson/requirements.in \
    --output-file requirements/tensorrt-llm-jetson.lock
lock --universal --python-version 3.11 pyproject.toml --extra dev --extra bench --constraints requirements/run.lock \
    --output-file requirements/dev.lock
# What the gateway is compared with, in an environment of its own.
lock --universal --python-version 3.11 requirements/litellm.in --output-file requirements/litellm.lock
# Which files these are for each image, and what they weigh.
PYTHONPATH=$PWD python requirements/files.py
