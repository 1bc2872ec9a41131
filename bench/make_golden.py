"""
Writes down what the built-in model says at temperature 0: `python -m bench.make_golden --socket WORKER.SOCK`.

Each prompt is asked twice of a llama.cpp server that listens on a Unix socket and serves `windlass-mini.gguf`, and once of the
checkpoint through transformers. A prompt is kept if all three say the same and no token was a close call: such a text does not
change with the number of threads, with the batch or with the type that an engine calculates in.
Needs torch, transformers and rich.
"""

import argparse
import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

_MODEL: Final = Path("images/windlass-mini/safetensors")
_GOLDEN: Final = Path("tests/golden/windlass_mini.json")
_CLOSE_CALL: Final = 0.15
"""A best token that leads by less than this, in logits, may lose under another rounding."""
_QUESTIONS: Final = (
    "What is a windlass?",
    "Hello",
    "Who are you?",
    "What can you do?",
    "How does Windlass work?",
    "Why is the sky blue?",
    "What is Docker?",
    "What is a token?",
    "What is GGUF?",
    "Who wrote Moby Dick?",
    "Count to ten.",
    "Tell me a story.",
    "Write a poem about the sea.",
    "Tell me a joke.",
    "What is the capital of France?",
    "Thank you!",
    "Goodbye",
)
_OPENINGS: Final = (
    "It was too heavy for Anna, and it was too heavy for Tom. Then",
    "The sea was calm, and they had to lift a heavy stone. It was",
    "The wind was cold, and they had to lift the anchor. It was",
    "A storm was near, and they had to lift an old bell. It was too",
    "The report of the Secretary of the",
    "The United States of",
    "The white whale",
    "Once upon a time,",
)
_CONVERSATION: Final = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello! How can I help you today?"},
    {"role": "user", "content": "What is an anchor?"},
]


class Socket(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("worker", timeout=120)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def cases() -> list[dict[str, Any]]:
    """Return what is asked: whole questions, a longer conversation, and openings to continue."""
    chats = [[{"role": "user", "content": question}] for question in _QUESTIONS]
    asked: list[dict[str, Any]] = [
        {"api": "chat", "messages": messages, "max_tokens": 64} for messages in (*chats, _CONVERSATION)
    ]
    return asked + [{"api": "completions", "prompt": prompt, "max_tokens": 24} for prompt in _OPENINGS]


def ask_llama(path: Path, case: dict[str, Any]) -> str:
    """Return what the llama.cpp server behind the socket says."""
    body = {key: value for key, value in case.items() if key != "api"} | {"temperature": 0, "cache_prompt": False}
    connection = Socket(path)
    target = "/v1/chat/completions" if case["api"] == "chat" else "/v1/completions"
    connection.request("POST", target, json.dumps(body), {"Content-Type": "application/json"})
    choice = json.load(connection.getresponse())["choices"][0]
    text: str = choice["message"]["content"] if case["api"] == "chat" else choice["text"]
    return text


def ask_transformers(model: Any, tokenizer: Any, case: dict[str, Any]) -> tuple[str, float]:  # noqa: ANN401  # library's own
    """Return what the checkpoint says, and by how little the closest of its choices was made."""
    prompt = case.get("prompt") or tokenizer.apply_chat_template(case["messages"], tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(prompt, return_tensors="pt")
    made = model.generate(
        **inputs, max_new_tokens=case["max_tokens"], do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    best = torch.stack(made.logits).topk(2).values
    text = tokenizer.decode(made.sequences[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text, float((best[..., 0] - best[..., 1]).min())


def main() -> None:
    """Ask everything everywhere and write what is agreed on."""
    parser = argparse.ArgumentParser(description="Write down what the built-in model says at temperature 0.")
    parser.add_argument("--socket", type=Path, required=True, help="where a llama.cpp server with windlass-mini.gguf listens")
    parser.add_argument("--model", type=Path, default=_MODEL, help="the same model's safetensors folder")
    parser.add_argument("--out", type=Path, default=_GOLDEN)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    golden = []
    for case in track(cases()):
        text, lead = ask_transformers(model, tokenizer, case)
        said = {ask_llama(options.socket, case), ask_llama(options.socket, case), text}
        if len(said) > 1 or lead < _CLOSE_CALL:
            print(f"left out: {case.get('prompt') or case['messages'][-1]['content']!r}, lead {lead:.2f}, said {sorted(said)}")
            continue
        golden += [{"engine": engine, **case, "text": text} for engine in ("llama-cpp", "transformers")]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(f"{options.out}: {len(golden)} entries")


if __name__ == "__main__":
    main()
