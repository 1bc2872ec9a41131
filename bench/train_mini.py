"""
Trains the built-in model `windlass-mini` from nothing: `python -m bench.train_mini --out images/windlass-mini`.

Half an hour to an hour on two CPU cores. The text comes from public-domain packages (see `bench.corpus`), the conversations from
`bench.talk`. On a shared machine set OMP_WAIT_POLICY=passive, or its two threads spend their time waiting for each other.
Every few minutes a checkpoint is written and the model exported, so a run that is cut short leaves something usable.
Needs torch, tokenizers, safetensors, gguf, numpy and rich.
"""

import argparse
import ctypes
import dataclasses
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from bench import corpus, export, talk
from bench.mini import SHAPE, Mini
from bench.vocabulary import END, SPLIT, TURN_END, TURN_START, Vocabulary


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the training goes."""

    out: Path
    work: Path
    steps: int
    minutes: float
    seed: int = 1
    rows: int = 10
    length: int = 256
    talk_share: float = 0.4
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    save_every_s: float = 120.0


def train_tokenizer(texts: list[str], path: Path) -> Tokenizer:
    """Learn a byte-level BPE vocabulary, or read the one that an earlier start left at `path`."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE.vocab,
        special_tokens=[END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


class Batches:
    """Rows for the training: some cut out of the prose at random places, the others full of conversations."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)  # noqa: S311  # reproducible on purpose
        self.known = talk.load()
        prose = list(corpus.documents(plan.work))
        counted = Counter(word for text in prose for word in re.findall(r"[a-z]{4,12}", text))
        self.words = sorted(word for word, count in counted.items() if count >= 12)
        talks = [self.conversation() for _ in range(8000)]
        self.tokenizer = train_tokenizer(prose + talks, plan.work / "tokenizer.json")
        self.vocabulary = Vocabulary.parse(self.tokenizer.to_str())
        self.end = self.vocabulary.number(END)
        self.prose = np.array([t for text in prose for t in (*self.tokenizer.encode(text).ids, self.end)], dtype=np.int32)

    def conversation(self) -> str:
        """Make up one conversation or story."""
        if self.chance.random() < 0.04:
            return talk.story(self.chance)
        return talk.conversation(self.chance, self.known, self.words)

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        """Yield batches of `rows` rows, each of `length` + 1 tokens, without end."""
        plan, size = self.plan, self.plan.length + 1
        talk_rows = round(plan.rows * plan.talk_share)
        while True:
            starts = [self.chance.randrange(len(self.prose) - size) for _ in range(plan.rows - talk_rows)]
            rows = [self.prose[start : start + size] for start in starts]
            yield np.stack(rows + [self._talk_row(size) for _ in range(talk_rows)])

    def _talk_row(self, size: int) -> NDArray[np.int32]:
        row: list[int] = []
        while len(row) < size:
            row += [*self.tokenizer.encode(self.conversation()).ids, self.end]
        return np.array(row[:size], dtype=np.int32)


def rate_at(done: float) -> float:
    """Return the learning rate's factor at a share of the run: a short warm-up, a plateau, then down to nothing."""
    if done < 0.02:
        return max(done, 0.001) / 0.02
    return 1.0 if done < 0.4 else max(0.02, (1 - done) / 0.6)


def train(plan: Plan) -> None:
    """Train for the planned time and leave the model in `plan.out`."""
    keep_freed_memory()
    torch.manual_seed(plan.seed)
    batches = Batches(plan)
    model = Mini()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name != "embedding"]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or name == "embedding"]
    optimizers = [
        torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]
    rates = [plan.matrix_rate, plan.other_rate]
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    began_s = saved_s = time.monotonic()
    loss_mean, tokens = math.nan, 0
    with Progress(*columns, refresh_per_second=0.5) as progress:
        bar = progress.add_task("start", total=1.0)
        for step, batch in enumerate(batches):
            spent_s = time.monotonic() - began_s
            # The clock only cuts in on a machine too busy to do all steps in time; the rate then still runs out smoothly.
            done = max(step / plan.steps, spent_s / (plan.minutes * 60))
            if done >= 1:
                break
            for optimizer, rate in zip(optimizers, rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * rate_at(done)
            rows = torch.from_numpy(batch).long()
            loss = model(rows[:, :-1], rows[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(others, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            tokens += rows[:, 1:].numel()
            loss_mean = loss.item() if math.isnan(loss_mean) else 0.97 * loss_mean + 0.03 * loss.item()
            note = f"step {step}  loss {loss_mean:.3f}  {tokens / max(spent_s, 1e-3):,.0f} tokens/s"
            progress.update(bar, completed=done, description=note)
            if step == 0 or time.monotonic() - saved_s > plan.save_every_s:
                saved_s = time.monotonic()
                progress.console.print(f"{spent_s:6.0f} s  {note}; saved")
                export.write(model.state(), SHAPE, batches.vocabulary, plan.out)
    export.write(model.state(), SHAPE, batches.vocabulary, plan.out)


def keep_freed_memory() -> None:
    """Tell the C library to reuse large blocks instead of returning them to the kernel, which costs a fifth of the time."""
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, 2**31 - 1)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", type=Path, required=True, help="folder that gets gguf/ and safetensors/")
    parser.add_argument(
        "--work", type=Path, default=Path("build/windlass-mini"), help="where fetched text and the tokenizer are kept"
    )
    parser.add_argument("--steps", type=int, default=2200, help="how many batches to learn from")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this time, even with steps left")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    train(Plan(out=options.out, work=options.work, steps=options.steps, minutes=options.minutes))


if __name__ == "__main__":
    main()
