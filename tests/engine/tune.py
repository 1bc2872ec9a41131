"""
Trains a small LoRA adapter, and says what the model answers with it: run inside the transformers image, for tests.

The adapter is added to what the matrices compute, as it was trained, and never to their values: what merging makes of it can be
held against the text that is written here.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

RANK, ALPHA, STEPS = 8, 16, 60
KINDS = ("q_proj", "k_proj", "v_proj", "down_proj")


def main() -> None:
    """Train on one question and one answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--question", required=True)
    parser.add_argument("--answer", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained("/source")
    model = AutoModelForCausalLM.from_pretrained("/source", dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": arguments.question}], tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(arguments.answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
    pairs = dict(adapt(model))
    train(model, asked, answer, [half for pair in pairs.values() for half in pair])
    save(pairs, arguments.out)
    print(json.dumps({"text": generate(model, tokenizer, asked)}), flush=True)  # noqa: T201


def adapt(model: torch.nn.Module) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Add a pair of small matrices to what each of some matrices computes."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if name.endswith(KINDS):
            a = torch.randn(RANK, module.in_features) / RANK
            b = torch.zeros(module.out_features, RANK)
            a.requires_grad_(True)
            b.requires_grad_(True)
            module.register_forward_hook(lambda _, given, made, a=a, b=b: made + given[0] @ a.T @ b.T * (ALPHA / math.sqrt(RANK)))
            yield name, (a, b)


def train(model: torch.nn.Module, asked: list[int], answer: list[int], halves: list[torch.Tensor]) -> None:
    """Teach the model one answer."""
    ids = torch.tensor([asked + answer])
    labels = torch.tensor([[-100] * len(asked) + answer])
    optimizer = torch.optim.Adam(halves, lr=4e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()


def save(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], out: Path) -> None:
    """Write the adapter as PEFT does."""
    out.mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": True, "target_modules": list(KINDS)}
    (out / "adapter_config.json").write_text(json.dumps(config))
    halves = {"A": 0, "B": 1}
    save_file(
        {
            f"base_model.model.{name}.lora_{side}.weight": pair[place].detach().contiguous()
            for name, pair in pairs.items()
            for side, place in halves.items()
        },
        out / "adapter_model.safetensors",
    )
    (out / "adapter_model.safetensors").chmod(0o644)


def generate(model: torch.nn.Module, tokenizer: AutoTokenizer, asked: list[int]) -> str:
    """Answer greedily, with the adapter beside the weights."""
    tokens = list(asked)
    with torch.inference_mode():
        for _ in range(64):
            token = int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
            if token in (0, 2):
                break
            tokens.append(token)
    return str(tokenizer.decode(tokens[len(asked) :], skip_special_tokens=True))


main()
