"""
Two ways to ask a server for chat completions, the same for everything that is compared.

The closed loop is wrk's (a package of Debian): as many callers as are told, each asking again as soon as it was answered. The
open loop is `native/paced.c`: requests leave when they are due. Both are written in C, for they share the cores with what they
measure.
"""

import json
import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.native import program
from bench.stack import output
from controller.errors import WindlassError

PATH: Final = "/v1/chat/completions"
PROMPT: Final = "What is a windlass?"
SCRIPT: Final = """
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
function done(summary, latency)
  local errors = summary.errors
  local bad = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  io.write(string.format("result %d %d %d %d %d\\n", summary.requests, summary.duration, p50, p99, bad))
end
"""
"""What wrk asks, and how it tells: requests, microseconds in all, microseconds at two percentiles, failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and of whom."""

    port: int
    model: str
    key: str = "none"

    @property
    def body(self) -> str:
        """The body, as OpenAI's clients send it."""
        return json.dumps({"model": self.model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 16})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a closed loop got: requests a second, and how long they took."""

    per_s: float
    median_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What an open loop got."""

    median_s: float
    p99_s: float
    requests: int


def closed(question: Question, *, clients: int, seconds: float) -> Rate:
    """
    Let *clients* ask all the time.

    Raises:
        WindlassError: an answer was not 200, or a connection broke.

    """
    script = SCRIPT.format(body=json.dumps(question.body), key=question.key)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        url = f"http://127.0.0.1:{question.port}{PATH}"
        argv = ["wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds:.0f}s", "--timeout", "60s"]
        said = output([*argv, "--script", file.name, url])
    found = re.search(r"^result (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.M)
    if found is None:
        raise WindlassError(f"wanted wrk's summary, got {said[-500:]!r}")
    requests, duration_us, median_us, p99_us, bad = map(int, found.groups())
    if bad or not requests:
        raise WindlassError(f"{bad} of {requests} requests to port {question.port} failed")
    return Rate(per_s=requests / duration_us * 1e6, median_s=median_us / 1e6, p99_s=p99_us / 1e6)


def opened(question: Question, *, per_s: float, seconds: float) -> list[float]:
    """
    Ask at the times of a Poisson process, and return what each request took, in seconds.

    Raises:
        WindlassError: an answer was not 200, or never came.

    """
    with tempfile.TemporaryDirectory() as folder:
        headers, body = Path(folder) / "headers", Path(folder) / "body"
        headers.write_bytes(
            f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {question.key}\r\n".encode()
        )
        body.write_text(question.body, encoding="utf-8")
        argv = [str(program("paced")), str(question.port), f"{per_s:g}", f"{seconds:g}", str(headers), str(body)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WindlassError(done.stderr.strip())
    return [float(line) / 1e6 for line in done.stdout.split()]


def latency(took_s: list[float]) -> Latency:
    """Sum up what an open loop got."""
    cuts = statistics.quantiles(took_s, n=100, method="inclusive")
    return Latency(median_s=cuts[49], p99_s=cuts[98], requests=len(took_s))
