"""Our own paths."""

import json

import pytest

from controller import wire
from controller.engines.builds import Quantization
from controller.errors import Reason
from tests.gateway.conftest import World
from tests.gateway.fakes import CHAT, COMPLETIONS


async def test_a_prompt_is_an_instruction_to_a_chat_model(near: World) -> None:
    """The answer tells text, model, route, usage and timings."""
    answer = await near.ask("/inference", {"prompt": "hi", "model": "mini", "max_length": 9, "temperature": 0})

    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["response"], body["model"], body["finish_reason"]) == ("said hi", "mini", "stop")
    assert body["route"]["reasons"] == ["it is resident"]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert (body["timings"]["waited_s"], body["timings"]["first_token_s"]) == (0.002, 0.0125)
    path, sent = near.workers["mini"].requests[0]
    assert path == CHAT
    assert sent == {"model": "mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "temperature": 0}


@pytest.mark.parametrize(("model", "more"), [("mini", {"raw": True}), ("large", {})])
async def test_a_prompt_is_continued_when_raw_or_by_a_model_that_does_not_chat(
    near: World, model: str, more: dict[str, bool]
) -> None:
    """Then it goes to the completions path as it is."""
    answer = await near.ask("/inference", {"prompt": "Once", "model": model, **more})

    assert answer.json()["response"] == "said Once"
    assert near.workers[model].requests == [(COMPLETIONS, {"model": model, "prompt": "Once"})]


async def test_without_a_model_one_is_chosen(near: World) -> None:
    """`/inference` needs no model; neither does `auto_select`, whatever `model` says."""
    for body in ({"prompt": "hi"}, {"prompt": "hi", "auto_select": True, "model": "large"}, {"prompt": "hi", "model": "auto"}):
        answer = await near.ask("/inference", body)

        assert answer.status_code == 200, answer.text
        assert near.controller.acquired[-1].ask.mode == "auto"


async def test_a_stream_of_pieces_ends_with_the_figures(near: World) -> None:
    """Each event is a piece of text; the last one says that it is done, by whom and at what cost."""
    answer = await near.ask("/inference", {"messages": [{"role": "user", "content": "hi"}], "model": "mini", "stream": True})

    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert "".join(event["response"] for event in events[:-1]) == "Once upon a time"
    assert events[-1]["done"] is True
    assert events[-1]["model"] == "mini"
    assert events[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert events[-1]["finish_reason"] == "stop"
    assert events[-1]["timings"]["engine"]["predicted_n"] == 4


async def test_a_stream_of_pieces_that_breaks_says_so(near: World) -> None:
    """The last event is the error."""
    answer = await near.ask("/inference", {"prompt": "hi", "model": "mini", "stream": True, "fake": {"die_after": 2}})

    assert json.loads(answer.text.splitlines()[-2].removeprefix("data: "))["error"]["code"] == "worker_failed"


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, {"prompt": 5}, {"prompt": "a", "max_length": -3}],
)
async def test_an_inference_without_a_clear_prompt_is_refused(near: World, body: dict[str, object]) -> None:
    """It wants either a prompt or messages, of the right types."""
    answer = await near.ask("/inference", body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize("said", [b"[]", b'{"choices": ["text"]}', b'{"choices": [{"message": "text"}]}', b"null", b"{"])
async def test_what_is_no_completion_is_the_error_of_its_own_request(near: World, said: bytes) -> None:
    """Workers run other people's code: one that answers anything else ends neither the gateway's form nor a batch."""
    near.workers["mini"].raw = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(said),
        said,
    )
    alone = await near.ask("/inference", {"prompt": "a", "model": "mini"})
    items = [{"prompt": "a", "model": "mini"}, {"prompt": "b", "model": "large"}]
    batch = (await near.ask("/batch_inference", {"requests": items})).json()

    assert (alone.status_code, alone.json()["error"]["code"]) == (502, "worker_error")
    assert [batch["results"][0]["error"]["code"], batch["results"][1]["response"]] == ["worker_error", "said b"]


async def test_a_batch_keeps_its_order_and_asks_model_by_model(near: World) -> None:
    """Results come in the order of the requests, each with its own error; the asking is grouped by model, as a batch."""
    items = [
        {"prompt": "a", "model": "mini"},
        {"prompt": "b", "model": "large"},
        {"prompt": "c", "model": "nonsuch"},
        {"prompt": "d", "model": "mini", "max_length": -1},
        {"prompt": "e", "model": "mini"},
        {"prompt": "f", "model": "mini", "fake": {"status": 500}},
    ]
    answer = await near.ask("/batch_inference", {"requests": items, "temperature": 0})

    body = answer.json()
    assert (body["count"], body["failed"]) == (6, 3)
    assert [result["index"] for result in body["results"]] == [0, 1, 2, 3, 4, 5]
    assert [result.get("response") for result in body["results"]] == ["said a", "said b", None, None, "said e", None]
    codes = [result["error"]["code"] for result in body["results"] if "error" in result]
    assert codes == ["model_not_found", "invalid_value", "worker_error"]
    assert [acquire.ask.model for acquire in near.controller.acquired] == ["mini", "mini", "mini", "large"]
    assert {acquire.priority for acquire in near.controller.acquired} == {"batch"}
    await near.idle()


async def test_prompts_share_the_rest_of_the_body(near: World) -> None:
    """A list of prompts is a batch of requests that differ in nothing else."""
    answer = await near.ask("/batch_inference", {"prompts": ["a", "b"], "model": "mini", "max_length": 5})

    assert [result["response"] for result in answer.json()["results"]] == ["said a", "said b"]
    assert {request["max_tokens"] for _, request in near.workers["mini"].requests} == {5}


@pytest.mark.parametrize(
    "body", [{}, {"prompts": []}, {"prompts": ["a"], "requests": [{}]}, {"prompts": ["a"] * 257}, {"requests": "x"}]
)
async def test_a_batch_needs_one_list_of_bounded_length(near: World, body: dict[str, object]) -> None:
    """Nothing, both lists, or too many are refused."""
    answer = await near.ask("/batch_inference", body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


async def test_a_large_batch_waits_in_windows(near: World) -> None:
    """No more than a window of it waits at once, so that a batch does not fill the queue."""
    answer = await near.ask("/batch_inference", {"prompts": [str(number) for number in range(200)], "model": "mini"})

    assert answer.json()["failed"] == 0
    assert near.controller.most_leases <= 32


@pytest.mark.parametrize(
    ("path", "verb", "arguments"),
    [
        ("/status", "status", {}),
        ("/models", "models", {}),
        ("/performance", "performance", {"window_s": 3600.0}),
        ("/performance?window=15m", "performance", {"window_s": 900.0}),
        ("/plan/mini", "plan", {"model": "mini"}),
        ("/builds", "builds", {}),
        ("/models/mini/logs?tail=5", "logs", {"model": "mini", "tail": 5}),
    ],
)
async def test_what_the_controller_tells_is_passed_on(near: World, path: str, verb: str, arguments: dict[str, object]) -> None:
    """Reading paths ask the controller and answer what it says."""
    near.controller.answers[verb] = {"told": verb}
    answer = await near.http.get(path)

    assert (answer.status_code, answer.json()) == (200, {"told": verb})
    assert (near.controller.calls[0].verb, near.controller.calls[0].arguments) == (verb, arguments)


@pytest.mark.parametrize(
    ("path", "body", "verb", "arguments"),
    [
        ("/load_model", {"model_name": "mini"}, "load", {"model": "mini", "wait": True}),
        ("/load_model", {"model": "mini", "wait": False}, "load", {"model": "mini", "wait": False}),
        ("/unload_model", {"model_name": "mini", "force": True}, "unload", {"model": "mini", "wait": True, "force": True}),
        ("/optimize", {}, "optimize", {}),
        ("/build_model", {"model_name": "mini"}, "build", {"model": "mini", "quantization": None}),
        *(
            ("/build_model", {"model": "mini", "quantization": wanted}, "build", {"model": "mini", "quantization": wanted})
            for wanted in (*map(str, Quantization), "auto")
        ),
        ("/build_model", {"model": "mini", "quantization": "Q4_K_M"}, "build", {"model": "mini", "quantization": "q4_k_m"}),
        ("/cancel_build", {"model_name": "mini"}, "builds.cancel", {"model": "mini"}),
    ],
)
async def test_what_is_to_be_done_is_passed_on(
    near: World, path: str, body: dict[str, object], verb: str, arguments: dict[str, object]
) -> None:
    """Doing paths have the controller do it and answer what came of it."""
    near.controller.answers[verb] = {"state": "done"}
    answer = await near.ask(path, body)

    assert (answer.status_code, answer.json()) == (200, {"state": "done"})
    assert (near.controller.calls[0].verb, near.controller.calls[0].arguments) == (verb, arguments)


async def test_a_conflict_is_a_conflict(near: World) -> None:
    """Unloading what is busy is a 409 with the controller's words."""
    near.controller.answers["unload"] = wire.Failed(id="", reason=Reason.CONFLICT, message="mini is busy; force ends its callers")
    answer = await near.ask("/unload_model", {"model_name": "mini"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/load_model", {}, 400),
        ("/load_model", {"model_name": "nonsuch"}, 404),
        ("/load_model", {"model_name": ["mini"]}, 400),
        ("/load_model", {"model_name": "mini", "wait": "yes"}, 400),
        ("/unload_model", {"model_name": "../mini"}, 404),
        ("/build_model", {}, 400),
        ("/build_model", {"model_name": "nonsuch"}, 404),
        ("/build_model", {"model_name": "mini", "quantization": "q3"}, 400),
        ("/build_model", {"model_name": "mini", "quantization": 4}, 400),
        ("/cancel_build", {"model_name": "nonsuch"}, 404),
        ("/optimize", [], 400),
    ],
)
async def test_what_cannot_be_meant_is_refused(near: World, path: str, body: object, status: int) -> None:
    """A missing, unknown or mistyped name never reaches the controller."""
    answer = await near.ask(path, body)

    assert answer.status_code == status
    assert near.controller.calls == []


@pytest.mark.parametrize("query", ["window=soon", "window=-1", "window=0", "window=99999d", "window=1e3"])
async def test_a_window_that_is_none_is_refused(near: World, query: str) -> None:
    """`/performance` wants a time up to ninety days."""
    assert (await near.http.get(f"/performance?{query}")).status_code == 400


@pytest.mark.parametrize("query", ["tail=0", "tail=-1", "tail=x", "tail=99999999", "tail=²"])
async def test_a_tail_that_is_none_is_refused(near: World, query: str) -> None:
    """Logs are read in lines from one to ten thousand."""
    assert (await near.http.get(f"/models/mini/logs?{query}")).status_code == 400


@pytest.mark.parametrize(("state", "status"), [("ok", 200), ("degraded", 200), ("failing", 503)])
async def test_health_is_what_the_controller_says(near: World, state: str, status: int) -> None:
    """Ok and degraded are 200, failing is 503, with the reasons."""
    near.controller.answers["health"] = {"state": state, "reasons": ["because"]}
    answer = await near.http.get("/health")

    assert (answer.status_code, answer.json()) == (status, {"status": state, "reasons": ["because"]})


async def test_the_metrics_count_answers_and_tokens(near: World) -> None:
    """Prometheus reads what was answered, by path and status, and what the controller tells of the box beside it."""
    near.controller.answers["status"] = {
        "state": "degraded",
        "memory": {"budget_bytes": 5, "pressure_some_avg10": None},
        "thermal": {"zones": [{"name": 'the "hot" one', "celsius": 51.5}]},
        "cards": [{"index": 1, "name": "RTX", "budget_bytes": 9, "workers": []}],
        "workers": [{"model": "mini", "status": "ready", "memory_bytes": 7, "leases": 2}],
        "queue": [{"waiting_s": 1.5}, {"waiting_s": 0.5}],
    }
    await near.chat()
    await near.chat(max_tokens=-1)
    text = (await near.http.get("/metrics")).text

    assert 'windlass_gateway_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert 'windlass_gateway_requests_total{path="/v1/chat/completions",status="400"} 1.0' in text
    assert 'windlass_gateway_tokens_total{kind="completion",model="mini"} 4.0' in text
    assert "windlass_gateway_controller_up 1.0" in text
    assert 'windlass_memory_bytes{kind="budget"} 5.0' in text
    assert 'windlass_gpu_memory_bytes{gpu="1",kind="budget"} 9.0' in text
    assert 'windlass_celsius{zone="the \\"hot\\" one"} 51.5' in text
    assert 'windlass_worker_memory_bytes{model="mini",status="ready"} 7.0' in text
    assert "windlass_queue_length 2.0" in text
    assert "windlass_queue_longest_wait_s 1.5" in text
    assert "windlass_health 1.0" in text


async def test_the_metrics_do_not_need_a_controller(near: World) -> None:
    """Without one, what is counted here is still there to read."""
    await near.controller.stop()
    text = (await near.http.get("/metrics")).text

    assert "windlass_gateway_controller_up 0.0" in text


async def test_the_documentation_needs_no_other_site(near: World) -> None:
    """The page loads nothing from elsewhere, and the document lists every path."""
    page = (await near.http.get("/docs")).text
    document = (await near.http.get("/openapi.json")).json()

    assert "http://" not in page
    assert "https://" not in page
    assert "/v1/chat/completions" in document["paths"]
    assert document["components"]["schemas"]["ChatBody"]["required"] == ["messages"]
    assert (await near.http.get("/")).headers["location"] == "/docs"
