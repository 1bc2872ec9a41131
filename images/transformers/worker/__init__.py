"""
A server for one Hugging Face checkpoint on a Unix socket, with OpenAI's paths.

    arguments, errors               what the command line says; every refusal
    devices                         what computes, and in which precision
    folder, prompts                 is this folder safe and whole; a conversation as one prompt
    schemas, replies, sse           what callers send; what they get; how a stream is framed
    stops, detokenizer              text out of tokens, and where it must end
    sequence, runner, work          one answer as a chain of small steps; many answers by turns on one thread
    lean, loading, model, sampling  the only modules that know torch
    app, __main__                   routes; the process

Everything but the line that knows torch is importable without it, and tested without it.
"""
