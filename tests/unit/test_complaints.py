"""What programs write when the GPU has no memory for them, told from what else they write."""

import pytest

from controller.complaints import LINES, LONGEST, gpu_memory_complaint


@pytest.mark.parametrize(
    "line",
    [
        "NvMapMemAllocInternalTagged: 1075072515 error 12",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 7.44 GiB",
        "RuntimeError: CUDA error: out of memory",
        "CUDA runtime error in cudaMalloc(&ptr, n): out of memory",
        "[TensorRT-LLM][ERROR] CUDA driver error in cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1834.82 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "[E] [TRT] 1: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "terminate called: cudaErrorMemoryAllocation",
    ],
)
def test_it_is_known_in_the_words_of_each(line: str) -> None:
    """Drivers, runtimes and engines each say it in their own way."""
    assert gpu_memory_complaint(f"starting\n{line}\nTraceback (most recent call last):\n") == line


@pytest.mark.parametrize(
    "log",
    [
        "",
        "error loading model: tensor 'blk.0.attn_q.weight' has wrong shape",
        "CUDA error: an illegal memory access was encountered",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "[W] [TRT] Skipping tactic 0x1f due to insufficient memory on requested size of 2147483648",
        "NvMapMemAllocInternalTagged: 1075072515 error 22",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_other_ends_are_not_mistaken_for_it(log: str) -> None:
    """More memory would not help there."""
    assert not gpu_memory_complaint(log)


def test_what_was_said_long_before_the_end_does_not_count() -> None:
    """Some say it and go on with less."""
    log = "CUDA out of memory, trying again\n" + "served\n" * LINES

    assert not gpu_memory_complaint(log)
    assert gpu_memory_complaint(log.removesuffix("served\n"))


def test_a_long_line_is_cut() -> None:
    """It is shown to people and to callers."""
    assert len(gpu_memory_complaint("CUDA out of memory " + "x" * 1000)) == LONGEST
