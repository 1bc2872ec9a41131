"""The router: who may serve a request, and who of those does."""

import itertools
import random
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import router
from controller.charges import Capacity, OnCard
from controller.errors import Reason, RefusedError
from controller.router import Candidate, choose, faults
from controller.spec import ApiPath, Footprint, FootprintSource, ModelName, ModelSpec
from controller.units import GIB
from controller.wire import Ask

CHAT = frozenset({ApiPath.CHAT, ApiPath.COMPLETIONS})


def candidate(name: str = "alpha", *, total_bytes: int = GIB, **changes: object) -> Candidate:
    """Make a candidate that can serve a plain chat; keywords of the spec go to the spec."""
    of_spec = set(ModelSpec.__dataclass_fields__) - {"load_s"}
    spec_changes = {key: changes.pop(key) for key in list(changes) if key in of_spec}
    of_candidate: dict[str, Any] = changes
    values: dict[str, Any] = {
        "name": ModelName(name),
        "engine": "llama-cpp",
        "folder": PurePosixPath("/models") / name,
        "weights": PurePosixPath("weights.gguf"),
        "weights_bytes": GIB,
        "digest": "d",
        "context_tokens": 2048,
        "parallel": 1,
        "footprint": Footprint(total_bytes=total_bytes, weights_bytes=GIB, private_bytes=0, source=FootprintSource.ESTIMATE),
        "load_s": 2.0,
        "api_paths": CHAT,
        "parameters": 500_000_000,
    }
    return Candidate(spec=ModelSpec(**(values | spec_changes)), **of_candidate)


def ask(mode: str = "auto", **changes: object) -> Ask:
    """Make a plain chat request."""
    plain = {"mode": mode, "api_path": "/v1/chat/completions", "prompt_tokens": 10, "max_tokens": 16}
    return msgspec.convert(plain | changes, Ask)


def refusal(request: Ask, candidates: list[Candidate]) -> RefusedError:
    """Return the refusal that must come."""
    with pytest.raises(RefusedError) as caught:
        choose(request, candidates)
    return caught.value


INELIGIBLE = {
    "path": (candidate(), ask(api_path="/v1/embeddings"), "does not serve /v1/embeddings"),
    "no path at all": (candidate(api_paths=frozenset()), ask(), "it serves nothing"),
    "context": (candidate(context_tokens=25), ask(), "context is 25 tokens"),
    "tools": (candidate(), ask(tools=True), "cannot call tools"),
    "tags": (candidate(tags=frozenset({"code"})), ask(tags=("code", "math")), "not tagged math"),
    "neither path": (candidate(), ask(api_path="/v1/embeddings", also="/v1/other"), "does not serve /v1/embeddings"),
    "fields it has not heard of": (
        candidate(taken_fields=frozenset({"n"}), ignored_fields=frozenset({"user"})),
        ask(request_fields=("n", "seed", "user")),
        "llama-cpp does not take seed",
    ),
    "fields": (
        candidate(refused_fields=frozenset({"logit_bias", "n"})),
        ask(request_fields=("n", "temperature")),
        "llama-cpp does not take n",
    ),
}


def test_another_path_will_do() -> None:
    """A prompt that may be continued or answered goes to a model that only chats."""
    chats = candidate("chats", api_paths=frozenset({ApiPath.CHAT}))

    assert "chats" == choose(ask(api_path=ApiPath.COMPLETIONS.value, also=ApiPath.CHAT.value), [chats]).model


@pytest.mark.parametrize(("model", "request_", "text"), INELIGIBLE.values(), ids=INELIGIBLE.keys())
def test_a_model_that_cannot_serve_a_request_is_refused_with_the_reason(model: Candidate, request_: Ask, text: str) -> None:
    """Each hard condition alone makes a model ineligible, in every mode, and the refusal says which."""
    for mode in ("auto", "manual", "hybrid"):
        error = refusal(msgspec.structs.replace(request_, mode=mode, model="alpha"), [model])

        assert error.reason is Reason.NOT_ELIGIBLE
        assert text in str(error)


def test_prompt_and_answer_that_just_fit_are_served() -> None:
    """The context bound itself is allowed."""
    route = choose(ask(), [candidate(context_tokens=26)])

    assert route.model == "alpha"


def test_tools_and_tags_that_a_model_has_do_not_hinder_it() -> None:
    """What is asked for and present is no fault."""
    model = candidate(tools=True, tags=frozenset({"code", "small"}))

    assert faults(ask(tools=True, tags=("code",)), model) == ()


def test_a_model_larger_than_its_room_never_fits() -> None:
    """The refusal carries both figures, where the footprint came from, and what to do."""
    error = refusal(ask("manual", model="alpha"), [candidate(total_bytes=3 * GIB, room=Capacity(ram_bytes=2 * GIB))])

    assert error.reason is Reason.NEVER_FITS
    assert "3 GiB (estimate)" in str(error)
    assert "at most 2 GiB" in str(error)
    assert "model.toml" in str(error)


def test_a_model_exactly_as_large_as_its_room_fits() -> None:
    """Room is inclusive."""
    assert choose(ask(), [candidate(total_bytes=2 * GIB, room=Capacity(ram_bytes=2 * GIB))]).model == "alpha"


def test_a_model_larger_than_every_card_is_refused_with_the_figures() -> None:
    """Memory alone does not run it; what fits on one card is chosen."""
    footprint = Footprint(total_bytes=GIB, weights_bytes=0, private_bytes=GIB, source=FootprintSource.ESTIMATE, gpu_bytes=3 * GIB)
    room = Capacity(ram_bytes=9 * GIB, cards=(OnCard(0, 2 * GIB), OnCard(1, GIB)))
    error = refusal(ask("manual", model="alpha"), [candidate(footprint=footprint, room=room)])

    assert error.reason is Reason.NEVER_FITS
    assert "needs 3 GiB of a GPU's memory (estimate) and can be given at most 2 GiB of one" in str(error)
    assert (error.details["gpu_bytes"], error.details["gpu_room_bytes"]) == (3 * GIB, 2 * GIB)
    larger = Capacity(ram_bytes=9 * GIB, cards=(OnCard(0, 2 * GIB), OnCard(1, 3 * GIB)))
    assert choose(ask(), [candidate(footprint=footprint, room=larger)]).model == "alpha"


def test_a_model_that_cannot_run_now_is_refused_for_now() -> None:
    """A crash loop is no fault of the request."""
    broken = candidate(unavailable_reason="it crashed 5 times in a row")
    error = refusal(ask("manual", model="alpha"), [broken])

    assert not broken.available
    assert error.reason is Reason.UNAVAILABLE
    assert str(error) == "alpha cannot serve this request: it crashed 5 times in a row"


def test_the_lasting_reason_of_one_model_counts_and_the_passing_one_of_many() -> None:
    """Of one model's faults the most permanent is the reason; of many models' reasons the most hopeful."""
    both = candidate("a", total_bytes=3, room=Capacity(ram_bytes=2), unavailable_reason="crash loop")
    down = candidate("b", unavailable_reason="crash loop")

    assert refusal(ask(tools=True), [both]).reason is Reason.NOT_ELIGIBLE
    assert refusal(ask(), [both]).reason is Reason.NEVER_FITS
    assert refusal(ask(), [both, down]).reason is Reason.UNAVAILABLE


def test_a_refusal_names_every_model_but_not_thousands() -> None:
    """Reasons of up to eight models are given, and the rest is counted."""
    models = [candidate(f"m{number}") for number in range(10)]
    few, many = refusal(ask(tools=True), models[:8]), refusal(ask(tools=True), models)

    assert all(f"m{number}: it cannot call tools" in str(few) for number in range(8))
    assert "more" not in str(few)
    assert str(many).endswith("and 2 more")


def test_a_box_without_models_says_so() -> None:
    """No candidates at all is an unknown model with advice."""
    error = refusal(ask(), [])

    assert error.reason is Reason.UNKNOWN_MODEL
    assert "models folder" in str(error)


@pytest.mark.parametrize("mode", ["manual", "hybrid"])
@pytest.mark.parametrize("model", [None, ""])
def test_a_mode_that_needs_a_name_refuses_without_one(mode: str, model: str | None) -> None:
    """A missing name is the caller's mistake."""
    assert refusal(ask(mode, model=model), [candidate()]).reason is Reason.MALFORMED


def test_an_unknown_name_comes_back_with_near_ones() -> None:
    """A typo gets the names that look like it, the nearest first."""
    error = refusal(ask("manual", model="Qwen2.5-0.5B"), [candidate("qwen2.5-0.5b"), candidate("qwen2.5-1.5b"), candidate("phi")])

    assert error.reason is Reason.UNKNOWN_MODEL
    assert str(error) == "no model is named 'Qwen2.5-0.5B'; did you mean qwen2.5-0.5b or qwen2.5-1.5b?"


def test_an_unknown_name_like_nothing_says_where_the_list_is() -> None:
    """Without a near name the refusal points to the list, and a long name is cut."""
    error = refusal(ask("manual", model="z" * 5000), [candidate()])

    assert "GET /models" in str(error)
    assert len(str(error)) < 200


def test_near_names_stay_cheap_with_many_models() -> None:
    """Beyond a thousand names only those with the same first letter are compared."""
    names = [f"a{number}" for number in range(1500)] + ["mini"]

    assert router.near_names("mino", names) == ("mini",)


def test_manual_serves_the_named_model_however_slow() -> None:
    """Nobody else is even considered."""
    slow, quick = candidate("slow", wait_s=500, load_s=60), candidate("quick", resident=True)
    route = choose(ask("manual", model="slow"), [quick, slow])

    assert route.model == "slow"
    assert route.reasons == ("the request names slow",)
    assert [name for name, _ in route.considered] == ["slow"]


def test_auto_takes_the_resident_model_that_is_a_little_weaker() -> None:
    """A load costs more than a somewhat better answer is worth."""
    weaker = candidate("weaker", parameters=1_000_000_000, resident=True, tokens_per_s=10)
    stronger = candidate("stronger", parameters=1_500_000_000, load_s=8, tokens_per_s=10)
    route = choose(ask(difficulty=0.9, signals=("asks for code",)), [stronger, weaker])

    assert route.model == "weaker"
    assert route.resident
    assert route.reasons[0] == "weaker is resident and is expected to end first, in 1.6 s, of 2 models strong enough"
    assert route.reasons[1] == "difficulty 0.90 (asks for code) asks for a model of 50% of the largest one's size or more"
    assert route.considered == (("weaker", 1.6), ("stronger", 9.6))


def test_auto_loads_a_strong_model_for_a_hard_request() -> None:
    """A resident model of a third of the size is too weak for the hardest step."""
    small = candidate("small", parameters=500_000_000, resident=True)
    large = candidate("large", parameters=1_500_000_000, load_s=8)
    route = choose(ask(difficulty=0.9), [small, large])

    assert route.model == "large"
    assert route.reasons[0] == "large is the only eligible model strong enough; it must be loaded"
    assert choose(ask(difficulty=0.5), [small, large]).model == "small"


def test_auto_says_when_there_was_no_choice() -> None:
    """With one eligible model the reason is that, and the others' faults follow."""
    route = choose(ask(tools=True), [candidate("with", tools=True), candidate("without")])

    assert route.reasons == (
        "with is the only model that can serve this request; it must be loaded",
        "not without: it cannot call tools",
    )


def test_auto_counts_the_models_it_does_not_list() -> None:
    """Reasons do not grow with the number of models."""
    route = choose(ask(tools=True), [candidate("z", tools=True), *(candidate(f"m{number}") for number in range(20))])

    assert len(route.reasons) == 1 + router.MOST_REASONS + 1
    assert route.reasons[-1] == "and 12 more that cannot serve this request"


def test_auto_avoids_a_queue() -> None:
    """Waiting counts like loading."""
    busy, idle = candidate("busy", resident=True, wait_s=20, tokens_per_s=16), candidate("idle", load_s=3, tokens_per_s=16)

    assert choose(ask(), [busy, idle]).model == "idle"


@pytest.mark.parametrize(("difficulty", "share"), [(0, 0), (0.35, 0), (0.36, 0.25), (0.7, 0.25), (0.71, 0.5), (1, 0.5), (7, 0.5)])
def test_difficulty_asks_for_a_share_of_the_largest_model(difficulty: float, share: float) -> None:
    """The steps are as documented, and a figure beyond 1 is the hardest."""
    assert router.needed_share(difficulty) == share


def test_an_answer_is_taken_to_be_typical_where_the_caller_allows_more() -> None:
    """A large limit, or none, counts as a typical answer; a small one counts itself."""
    model = candidate(tokens_per_s=16)
    seconds = [router.expected_s(ask(max_tokens=tokens), model, bandwidth_bytes_s=1) for tokens in (0, 8, 100_000)]

    assert seconds == [16, 0.5, 16]


def test_embeddings_have_no_answer_to_wait_for() -> None:
    """Only wait and load count for an embedding."""
    assert router.expected_s(ask(api_path="/v1/embeddings"), candidate(wait_s=1, load_s=2), bandwidth_bytes_s=1) == 3


def test_an_unmeasured_model_is_timed_by_its_weights() -> None:
    """Decoding reads the weights once a token: the measured ones tell how fast this box reads."""
    measured = candidate("measured", weights_bytes=GIB, tokens_per_s=4, resident=True)
    unmeasured = candidate("unmeasured", weights_bytes=GIB // 2, resident=True)

    assert dict(choose(ask(), [measured, unmeasured]).considered) == {"unmeasured": 2.0, "measured": 4.0}
    assert dict(choose(ask(), [unmeasured]).considered) == {"unmeasured": 1.0}


def test_hybrid_takes_the_preferred_model_if_it_starts_soon_enough() -> None:
    """A load of a few seconds is worth the model that was preferred."""
    preferred, other = candidate("preferred", load_s=9), candidate("other", resident=True)
    route = choose(ask("hybrid", model="preferred", fallback=("other",)), [other, preferred])

    assert route.model == "preferred"
    assert route.reasons == ("preferred is the preferred model",)


def test_hybrid_falls_back_when_the_preferred_model_is_much_later() -> None:
    """Beyond the grace the first stand-in that starts soon enough is taken, and the reason has the figures."""
    preferred, other = candidate("preferred", load_s=9, wait_s=60), candidate("other", resident=True)
    route = choose(ask("hybrid", model="preferred", fallback=("other",)), [other, preferred])

    assert route.model == "other"
    assert route.reasons == (
        "other is the first stand-in that can start soon enough",
        "not preferred: it would start in 1 min 09 s, and 10.0 s is as long as it is waited for here",
    )


def test_hybrid_keeps_the_callers_order_among_stand_ins() -> None:
    """The list is best first; being quickest is not enough to jump it."""
    models = [
        candidate("one", tools=False),
        candidate("two", load_s=5, tools=True),
        candidate("three", resident=True, tools=True),
    ]
    route = choose(ask("hybrid", model="one", fallback=("gone", "two", "three"), tools=True), models)

    assert route.model == "two"
    assert route.reasons[1:] == ("not one: it cannot call tools", "not 'gone': no model has this name")


def test_hybrid_without_fallback_lets_anyone_stand_in() -> None:
    """The others stand in by the order of auto."""
    models = [candidate("wanted", unavailable_reason="crash loop"), candidate("b", load_s=3), candidate("c", load_s=1)]

    assert choose(ask("hybrid", model="wanted"), models).model == "c"
    assert choose(ask("hybrid", model="nobody"), models).model == "c"
    assert choose(ask("hybrid", model="b"), models).model == "b"


def test_hybrid_with_only_unknown_names_is_refused() -> None:
    """A list that names nobody is a list of typos."""
    error = refusal(ask("hybrid", model="alpho", fallback=("bete",)), [candidate("alpha"), candidate("beta")])

    assert error.reason is Reason.UNKNOWN_MODEL
    assert "alpha" in str(error)
    assert refusal(ask("hybrid", model="alpha"), []).reason is Reason.UNKNOWN_MODEL


def test_size_falls_back_to_the_weights() -> None:
    """Where a header does not tell the parameters, two bytes a parameter are assumed."""
    assert candidate(parameters=0, weights_bytes=1000).size == 500


NAMES = ["a", "b", "c", "d"]
candidates_ = st.lists(
    st.builds(
        candidate,
        st.sampled_from(NAMES),
        total_bytes=st.integers(1, 4),
        room=st.none() | st.integers(-1, 4).map(lambda size: Capacity(ram_bytes=size)),
        resident=st.booleans(),
        wait_s=st.sampled_from([0.0, 1.0, 30.0]),
        load_s=st.sampled_from([0.0, 2.0, 30.0]),
        tokens_per_s=st.none() | st.sampled_from([0.0, 8.0, 64.0]),
        refused_fields=st.sampled_from([frozenset(), frozenset({"n"})]),
        unavailable_reason=st.sampled_from(["", "crash loop"]),
        context_tokens=st.sampled_from([16, 4096]),
        parameters=st.sampled_from([0, 1, 4, 16]),
        weights_bytes=st.sampled_from([0, 2, 64]),
        tools=st.booleans(),
        tags=st.sampled_from([frozenset(), frozenset({"code"})]),
        api_paths=st.sampled_from([CHAT, frozenset({ApiPath.EMBEDDINGS}), frozenset()]),
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)
asks = st.builds(
    Ask,
    mode=st.sampled_from(["manual", "auto", "hybrid"]),
    model=st.none() | st.sampled_from([*NAMES, "unknown"]),
    fallback=st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=3).map(tuple),
    api_path=st.sampled_from([*ApiPath, "/nowhere"]),
    prompt_tokens=st.sampled_from([0, 10, 5000]),
    max_tokens=st.sampled_from([0, 4, 5000]),
    tools=st.booleans(),
    tags=st.sampled_from([(), ("code",)]),
    difficulty=st.floats(0, 1),
    request_fields=st.sampled_from([(), ("n",)]),
)


@given(request_=asks, models=candidates_, seed=st.randoms(use_true_random=False))
def test_a_choice_is_eligible_and_depends_on_nothing_but_the_values(
    request_: Ask, models: list[Candidate], seed: random.Random
) -> None:
    """Whatever is asked: an eligible model or a refusal, the same in any order of candidates; manual never takes another."""

    def outcome(of: list[Candidate]) -> object:
        try:
            return choose(request_, of)
        except RefusedError as exc:
            return exc.reason, str(exc)

    shuffled = seed.sample(models, k=len(models))
    first = outcome(models)

    assert first == outcome(shuffled)
    if isinstance(first, tuple):
        allowed = {*(one.name for one in models)}
        if request_.mode == "manual":
            allowed &= {request_.model or ""}
        elif request_.mode == "hybrid":
            allowed &= {request_.model or "", *request_.fallback} if request_.fallback else allowed
        if request_.mode == "auto" or request_.model:
            assert not any(one.name in allowed and not faults(request_, one) for one in models)
    else:
        chosen = next(one for one in models if one.name == first.model)  # type: ignore[attr-defined]
        assert faults(request_, chosen) == ()
        if request_.mode == "manual":
            assert chosen.name == request_.model


def test_auto_agrees_with_brute_force() -> None:
    """On every small world, the choice is the one no other strong enough model beats by (seconds, name)."""
    shapes = list(itertools.product([1, 2, 5], [0.0, 4.0], [8.0, 32.0]))
    for shape in itertools.combinations_with_replacement(shapes, 3):
        models = [
            candidate(name, parameters=size, wait_s=wait_s, tokens_per_s=rate)
            for name, (size, wait_s, rate) in zip("xyz", shape, strict=True)
        ]
        for difficulty, share in ((0.1, 0), (0.5, 0.25), (0.9, 0.5)):
            largest = max(size for size, _, _ in shape)
            best = min(
                (wait_s + 16 / rate, name)
                for name, (size, wait_s, rate) in zip("xyz", shape, strict=True)
                if size >= share * largest
            )

            assert choose(ask(difficulty=difficulty), models).model == best[1]


def test_hybrid_agrees_with_its_rule_on_every_small_world() -> None:
    """The first of the caller's list whose start is within the grace plus twice the quickest."""
    for starts in itertools.product([0.0, 3.0, 10.5, 17.0, 40.0], repeat=3):
        models = [candidate(name, load_s=load_s) for name, load_s in zip("xyz", starts, strict=True)]
        expected = next(
            name for name, load_s in zip("zxy", (starts[2], *starts[:2]), strict=True) if load_s <= 10 + 2 * min(starts)
        )

        assert choose(ask("hybrid", model="z", fallback=("x", "y")), models).model == expected


def test_candidates_with_the_same_figures_are_ordered_by_name() -> None:
    """Twins are told apart by name alone."""
    models = [replace(candidate(name), resident=True) for name in ("b", "c", "a")]

    assert [name for name, _ in choose(ask(), models).considered] == ["a", "b", "c"]


def test_a_slow_box_answers_later_and_starts_as_soon() -> None:
    """At half the pace the answer takes twice as long, measured or not; loading and waiting stay what they are."""
    measured = candidate(wait_s=1.0, load_s=2.0, tokens_per_s=10.0)
    unmeasured = candidate(wait_s=1.0, load_s=2.0)
    slow = [replace(one, pace=0.5) for one in (measured, unmeasured)]
    at_full, at_half = (
        [router.expected_s(ask(max_tokens=100), one, bandwidth_bytes_s=10 * GIB) for one in both]
        for both in ((measured, unmeasured), slow)
    )

    assert at_full == [13.0, 13.0]
    assert at_half == [23.0, 23.0]


def test_a_slow_box_chooses_the_quicker_answer_sooner() -> None:
    """A large model that is resident ends before a small one is loaded; at half the pace it does not."""
    large = candidate("large", resident=True, tokens_per_s=25.0, parameters=2_000_000_000)
    small = candidate("small", load_s=8.0, tokens_per_s=100.0, parameters=500_000_000)
    chosen = [
        router.choose(ask(max_tokens=256), [replace(large, pace=pace), replace(small, pace=pace)]).model for pace in (1.0, 0.5)
    ]

    assert chosen == ["large", "small"]
