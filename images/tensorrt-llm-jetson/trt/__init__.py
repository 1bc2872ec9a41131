"""
What our image adds to the branch of TensorRT-LLM for Jetsons, which has no server for one: the HTTP side is that of `worker`.

    __main__   the server: `worker`'s, with an engine file in place of a checkpoint
    loading    the engine file, mapped, and the tokenizer of the checkpoint beside it
    answers    one answer: what a request asks of the executor, and what comes back of it, as text
    convert    the first step of a build: the branch's own converter, on a folder that was looked at before

The branch is for Python 3.10, and so are these and `worker`.
"""
