"""Our own paths, one after the other, on the whole stack."""

import json
from typing import Any

import pytest

from bench.stack import Stack, wait_until
from controller.units import parse_bytes
from tests.system.conftest import BUDGET, GIANT, MODELS, NAME, TWIN, WIDE, Place
from tests.system.talk import PATIENCE_S, PROMPT, Caller, Stream, leases, row, slowly

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MIB = 1024 * 1024
ASK: dict[str, Any] = {"prompt": "Hello", "max_length": 12, "temperature": 0}


def test_health_is_ok(caller: Caller) -> None:
    """A stack with nothing wrong says so in one word."""
    answer = caller.get("/health")

    assert (200, {"status": "ok", "reasons": []}) == (answer.status_code, answer.json())


def test_status_shows_memory_workers_and_queue(caller: Caller) -> None:
    """The budget is the one configured, what is committed lies within it, and the resident worker is in the list."""
    caller.text(NAME)
    status = caller.get("/status").json()

    memory = status["memory"]
    resident = next(worker for worker in status["workers"] if worker["model"] == NAME)
    assert parse_bytes(BUDGET) == memory["budget_bytes"]
    assert 100 * MIB <= memory["committed_bytes"] <= memory["budget_bytes"]
    assert memory["available_bytes"] < memory["total_bytes"]
    assert ("ready", 100 * MIB) == (resident["status"], resident["memory_bytes"])
    assert {"state", "reasons", "pressure", "thermal", "power", "disk", "queue", "uptime_s"} - {"pressure"} <= status.keys()
    assert status["disk"]["home_free_bytes"] > 0


def test_models_shows_every_model_with_its_figures(world: Stack, caller: Caller) -> None:
    """A model's row has its state, engine, tier, tags, bytes, load seconds, speed and count of requests."""
    asked_before = row(world, TWIN)["requests"]
    caller.text(TWIN)
    rows = {model["name"]: model for model in caller.get("/models").json()["models"]}

    assert set(MODELS) <= rows.keys()
    twin = rows[TWIN]
    assert ("resident", "llama-cpp", "medium", ["pair"], 4) == tuple(
        twin[key] for key in ("state", "engine", "tier", "tags", "parallel")
    )
    assert (100 * MIB, "override") == (twin["footprint_bytes"], twin["footprint_source"])
    assert twin["load_s"] > 0
    wait_until(lambda: row(world, TWIN)["requests"] == asked_before + 1, "the request is counted", PATIENCE_S)
    assert rows[WIDE]["tier"] == "large"


def test_load_and_unload(world: Stack, caller: Caller) -> None:
    """Loading answers when the model is resident, unloading when its memory is back, with seconds and bytes."""
    loaded = caller.post("/load_model", {"model_name": NAME}).json()
    resident = row(world, NAME)["state"]
    unloaded = caller.post("/unload_model", {"model": NAME}).json()

    assert (NAME, "resident", 100 * MIB) == (loaded["model"], loaded["state"], loaded["bytes"])
    assert resident == "resident"
    assert (NAME, "stopped", 100 * MIB) == (unloaded["model"], unloaded["state"], unloaded["bytes"])
    assert row(world, NAME)["state"] == "stopped"


def test_loading_without_waiting_answers_at_once(world: Stack, caller: Caller) -> None:
    """With `wait` off the answer is that it is being loaded, and it is loaded a moment later."""
    caller.post("/unload_model", {"model": NAME})
    answer = caller.post("/load_model", {"model": NAME, "wait": False}).json()

    assert answer["state"] in ("loading", "resident")
    wait_until(lambda: row(world, NAME)["state"] == "resident", "it is resident", PATIENCE_S)


def test_a_pinned_model_is_unloaded_only_by_force(world: Stack, caller: Caller, place: Place) -> None:
    """A pinned model is loaded without being asked for, unloading it is a conflict, and forcing it is not."""
    held = place("held-fast", 'memory = "64MiB"\npinned = true\n')
    wait_until(lambda: row(world, held)["state"] == "resident", "the pinned model is loaded by itself", PATIENCE_S)
    refused = caller.post("/unload_model", {"model": held})
    forced = caller.post("/unload_model", {"model": held, "force": True})

    assert (409, "conflict") == (refused.status_code, refused.json()["error"]["code"])
    assert (200, "stopped") == (forced.status_code, forced.json()["state"])


def test_a_busy_model_is_unloaded_only_by_force(world: Stack, caller: Caller, place: Place) -> None:
    """Unloading a model that answers is a conflict; forced, its caller is told in the stream what happened."""
    busy = place("busy")
    with slowly(world, busy), caller.stream(busy) as stream:
        stream.next()
        refused = caller.post("/unload_model", {"model": busy})
        forced = caller.post("/unload_model", {"model": busy, "force": True})
        last = stream.rest()[-1]

    assert (409, "conflict") == (refused.status_code, refused.json()["error"]["code"])
    assert forced.json()["state"] == "stopped"
    assert last["error"]["details"]["model"] == busy


def test_inference_answers_with_route_usage_and_timings(caller: Caller) -> None:
    """A model asked for by name answers, and the answer says which, why, how much and how long, in the body and in headers."""
    answer = caller.post("/inference", {**ASK, "model": NAME})
    body = answer.json()

    assert answer.status_code == 200
    assert body["response"]
    assert (NAME, NAME, "manual") == (body["model"], body["route"]["model"], body["route"]["mode"])
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert body["timings"]["total_s"] > 0
    assert NAME == answer.headers["x-windlass-model"]
    assert answer.headers["x-windlass-route"].startswith("manual; ")
    assert float(answer.headers["x-windlass-waited-ms"]) >= 0


def test_inference_takes_messages_and_cuts_at_max_length(caller: Caller) -> None:
    """A conversation is answered like a prompt, and `max_length` is `max_tokens`."""
    body = caller.post("/inference", {"messages": [{"role": "user", "content": "Hello"}], "model": NAME, "max_length": 3}).json()

    assert ("length", 3) == (body["finish_reason"], body["usage"]["completion_tokens"])


def test_a_chosen_model_comes_with_its_reasons(caller: Caller) -> None:
    """Without a name, a model is chosen that can serve at all, and the reasons say why."""
    bodies = [
        caller.post("/inference", {**ASK, "auto_select": True}).json(),
        caller.post("/inference", {**ASK, "model": "auto"}).json(),
        caller.post("/inference", ASK).json(),
    ]

    assert ["auto", "auto", "auto"] == [body["route"]["mode"] for body in bodies]
    assert all(body["route"]["reasons"] for body in bodies)
    assert all(body["model"] == body["route"]["model"] != GIANT for body in bodies)


def test_tags_decide_who_may_be_chosen(caller: Caller) -> None:
    """Only a model that has the tag is chosen."""
    body = caller.post("/inference", {**ASK, "auto_select": True, "tags": ["pair"]}).json()
    nobody = caller.post("/inference", {**ASK, "auto_select": True, "tags": ["nobody-has-this"]})

    assert TWIN == body["model"]
    assert 400 <= nobody.status_code < 500


def test_openai_clients_may_have_a_model_chosen(caller: Caller) -> None:
    """`model: "auto"` works on OpenAI's paths, and the headers say what was chosen."""
    messages = [{"role": "user", "content": "Hello"}]
    answer = caller.post("/v1/chat/completions", {"model": "auto", "messages": messages, "max_tokens": 4, "tags": ["pair"]})

    assert (200, TWIN, TWIN) == (answer.status_code, answer.json()["model"], answer.headers["x-windlass-model"])
    assert answer.headers["x-windlass-route"].startswith("auto; ")


def test_a_preferred_model_is_taken_and_replaced(caller: Caller) -> None:
    """The preferred model answers if it can, and a stand-in does where it never could."""
    caller.text(NAME)
    preferred = caller.post("/inference", {**ASK, "preferred_model": NAME, "fallback": [TWIN]}).json()
    replaced = caller.post("/inference", {**ASK, "preferred_model": GIANT, "fallback": [TWIN]}).json()

    assert ("hybrid", NAME) == (preferred["route"]["mode"], preferred["model"])
    assert ("hybrid", TWIN) == (replaced["route"]["mode"], replaced["model"])
    assert replaced["route"]["reasons"]


def test_inference_as_a_stream(caller: Caller) -> None:
    """The pieces make the whole answer, and the last event has route, usage and timings."""
    whole = caller.post("/inference", {**ASK, "model": NAME}).json()
    with caller.http.stream("POST", "/inference", json={**ASK, "model": NAME, "stream": True}) as response:
        events = Stream(response).rest()

    assert whole["response"] == "".join(event.get("response", "") for event in events)
    assert (True, NAME, whole["finish_reason"]) == tuple(events[-1][key] for key in ("done", "model", "finish_reason"))
    assert events[-1]["route"]["mode"] == "manual"


def test_a_batch_keeps_its_order_and_bears_a_bad_item(world: Stack, caller: Caller) -> None:
    """Results come in the order of the requests, each bad one has its own error, and no model is loaded twice."""
    caller.post("/optimize")
    loads_before = world.api.get("/performance")["totals"]["loads"]
    requests = [{**ASK, "prompt": f"{number} and", "model": (NAME, WIDE, TWIN)[number % 3], "raw": True} for number in range(12)]
    requests[4] = {**ASK, "model": "nobody"}
    requests[7] = {**ASK, "model": NAME, "max_length": -5}
    answer = caller.post("/batch_inference", {"requests": requests})
    loads_after = world.api.get("/performance")["totals"]["loads"]

    body = answer.json()
    assert (200, 12, 2) == (answer.status_code, body["count"], body["failed"])
    assert list(range(12)) == [result["index"] for result in body["results"]]
    assert [4, 7] == [result["index"] for result in body["results"] if "error" in result]
    assert ["model_not_found", "invalid_value"] == [body["results"][bad]["error"]["code"] for bad in (4, 7)]
    good = [number for number in range(12) if number not in (4, 7)]
    assert [requests[number]["model"] for number in good] == [body["results"][number]["model"] for number in good]
    # Two of the three can never be resident together: taken as they come, the items would swap ten times.
    assert loads_after - loads_before <= 3


def test_a_batch_of_prompts_shares_the_rest(caller: Caller) -> None:
    """A list of prompts is answered by one model with one set of options, each as if asked alone."""
    prompts = [PROMPT, "The captain", "The sea"]
    body = caller.post(
        "/batch_inference", {"prompts": prompts, "model": NAME, "max_tokens": 8, "temperature": 0, "raw": True}
    ).json()

    assert [caller.text(NAME, prompt=prompt, tokens=8) for prompt in prompts] == [one["response"] for one in body["results"]]


def test_a_plan_says_who_would_leave(world: Stack, caller: Caller) -> None:
    """What a load would do is told without doing it: who leaves, or that it can never fit, with the numbers."""
    caller.text(NAME)
    evicting = caller.get(f"/plan/{WIDE}").json()
    never = caller.get(f"/plan/{GIANT}").json()
    there = caller.get(f"/plan/{NAME}").json()

    assert (True, "start") == (evicting["fits"], evicting["answer"])
    assert NAME in {one["model"] for one in evicting["evict"]}
    assert (False, "refuse", 64 * 1024 * MIB) == (never["fits"], never["answer"], never["footprint_bytes"])
    assert (True, []) == (there["resident"], there["evict"])
    assert row(world, NAME)["state"] == "resident"


def test_performance_counts_what_happened(caller: Caller) -> None:
    """Loads, requests and tokens of the window are counted for each model."""
    caller.post("/unload_model", {"model": NAME, "force": True})
    before = caller.get("/performance", params={"window": "1h"}).json()
    caller.text(NAME, tokens=16)
    caller.post("/unload_model", {"model": NAME, "force": True})
    after = caller.get("/performance", params={"window": "1h"}).json()

    grown = {key: after["totals"][key] - before["totals"][key] for key in ("loads", "unloads", "requests")}
    assert {"loads": 1, "unloads": 1, "requests": 1} == grown
    mine = next(model for model in after["models"] if model["model"] == NAME)
    assert mine["completion_tokens"] >= 16
    assert mine["load_s"]["p50"] > 0
    assert NAME == after["recent_loads"][-1]["model"]


def test_optimize_frees_what_is_idle(world: Stack, caller: Caller) -> None:
    """Idle models are unloaded, and the answer says so with the memory before and after."""
    caller.text(NAME)
    body = caller.post("/optimize").json()

    assert any(NAME in line for line in body["done"])
    assert {"freed_bytes", "before", "after"} <= body.keys()
    assert row(world, NAME)["state"] == "stopped"


def test_logs_show_what_the_worker_wrote(caller: Caller) -> None:
    """The worker's own last lines are there, as many as were asked for."""
    caller.text(NAME)
    body = caller.get(f"/models/{NAME}/logs", params={"tail": 5}).json()

    assert NAME == body["model"]
    assert 1 <= len(body["lines"]) <= 5


def test_metrics_are_there_for_prometheus(caller: Caller) -> None:
    """Counters come in the text format."""
    caller.text(NAME)
    answer = caller.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert "# TYPE windlass_" in answer.text


def test_the_documentation_needs_no_other_site(caller: Caller) -> None:
    """The page loads nothing from anywhere else, and the document lists every path of the design."""
    page = caller.get("/docs")
    document = caller.get("/openapi.json").json()

    assert page.status_code == 200
    assert 'src="http' not in page.text
    assert 'href="http' not in page.text
    assert {
        "/health",
        "/status",
        "/models",
        "/load_model",
        "/unload_model",
        "/inference",
        "/batch_inference",
        "/performance",
    } < set(document["paths"])
    assert json.dumps(document["paths"]["/optimize"])


def test_a_caller_that_hangs_up_holds_nothing(world: Stack, caller: Caller, place: Place) -> None:
    """A stream that is dropped gives its lease back at once, and the engine stops: the next caller need not wait for the rest."""
    slow = place("hung-up-on")
    with slowly(world, slow):
        with caller.stream(slow) as stream:
            stream.next()
            held = leases(world, slow)
        wait_until(lambda: leases(world, slow) == 0, "the lease is back", PATIENCE_S)
        with caller.stream(slow, tokens=4) as next_stream:
            next_stream.rest()
            waited_ms = float(next_stream.response.headers["x-windlass-waited-ms"])

    assert held == 1
    assert next_stream.finish_reason == "length"
    assert waited_ms < 5000
