"""The first two engines on GPUs: what their servers are told and need, and that a box without a GPU notices nothing."""

import itertools
from dataclasses import replace

import pytest

from controller import engines
from controller.charges import OnCard
from controller.device import NO_GPU, Device
from controller.engines.gpus import shares
from controller.probes.device import read_device
from controller.spec import ApiPath, Footprint, Spread
from controller.units import GIB, MIB
from tests.devices import NAMES, recorded
from tests.unit.test_engines import header, model, site

WITH_GPU = ("orin-nano-jp6.2.2", "orin-nano-jp7.2", "agx-thor-jp7.2", "discrete-1", "discrete-2")
LLAMA, TORCH = engines.find("llama-cpp"), engines.find("transformers")


def device(name: str) -> Device:
    """Return a recorded box."""
    recording = recorded(name)
    found = read_device(recording.system, recording.engine)
    return replace(found, cuda="13.0") if name == "discrete-1" else found  # its driver is too old to compute with


def argv(where: str, *cards: OnCard, **options: str | int | bool) -> tuple[str, ...]:
    """Return what the server of a model on this box is told."""
    return LLAMA.worker(model(cards=cards), replace(site(**options), device=device(where))).argv


def estimate(where: Device, *, parallel: int = 1, **options: str | int | bool) -> Footprint:
    """Return what half a billion weights at 16 bits need there."""
    return LLAMA.estimate(header(), context_tokens=2048, parallel=parallel, options=options, device=where)


@pytest.mark.parametrize("name", [name for name in NAMES if not device(name).has_gpu])
def test_a_box_whose_gpu_no_container_can_use_is_a_box_without(name: str) -> None:
    """Neither the container nor the estimate is another than on a box that has no GPU at all."""
    plain, here = site(), replace(site(), device=device(name))

    for engine in (LLAMA, TORCH):
        assert engine.worker(model(), plain) == engine.worker(model(), here)
        alone, there = (
            engine.estimate(header(), context_tokens=2048, parallel=1, device=where) for where in (NO_GPU, here.device)
        )
        assert alone == there


@pytest.mark.parametrize("sm", ["61", "70", ""])
def test_a_card_without_code_for_it_is_not_computed_with(sm: str) -> None:
    """The images hold code for SM 75 and later: a box with an older card computes with its processors, and is told so."""
    two = device("discrete-2")
    old = replace(two, gpus=(two.gpus[0], replace(two.gpus[1], sm=sm)))
    new = replace(two, gpus=(two.gpus[0], replace(two.gpus[1], sm="75")))
    worker = LLAMA.worker(model(), replace(site(), device=old))

    assert (("--device", "none"), ()) == (worker.argv[-2:], worker.devices)
    for engine in (LLAMA, TORCH):
        plain, with_old, with_new = (
            engine.estimate(header(), context_tokens=2048, parallel=1, device=where) for where in (NO_GPU, old, new)
        )
        assert plain == with_old
        assert with_new.gpu_bytes > 0
    assert "cuda" not in TORCH.worker(model(), replace(site(), device=old)).argv


@pytest.mark.parametrize(("cuda", "there"), [("12.8", False), ("13.0", True), ("", True)])
def test_cards_with_an_older_driver_are_not_computed_with(cuda: str, there: bool) -> None:
    """A driver runs what was made with its own CUDA or an older one; where nobody says which, it is tried."""
    here = replace(device("discrete-1"), cuda=cuda)
    spec = model(cards=(OnCard(0, GIB),) if there else ())

    for engine in (LLAMA, TORCH):
        found = engine.estimate(header(), context_tokens=2048, parallel=1, device=here)

        assert there == (found.gpu_bytes > 0)
        assert there == bool(engine.worker(spec, replace(site(), device=here)).devices)


@pytest.mark.parametrize("name", WITH_GPU)
def test_the_gpu_is_named_so_that_its_absence_is_an_error(name: str) -> None:
    """All layers go to the first GPU of the container, read past the page cache, whole."""
    tail = (
        *("--device", "CUDA0"),
        *("--n-gpu-layers", "999"),
        *("--load-mode", "dio"),
        *("--split-mode", "none"),
    )

    assert tail == argv(name, *((OnCard(0, GIB),) if name.startswith("discrete") else ()))[-len(tail) :]


def test_a_model_over_several_cards_is_split_as_it_was_placed() -> None:
    """Layers are laid over the cards in the proportions of their shares; inside the container the cards are counted from 0."""
    tail = argv("discrete-2", OnCard(0, 6 * GIB), OnCard(1, 2 * GIB))

    assert {"--device": "CUDA0,CUDA1", "--split-mode": "layer", "--tensor-split": "75,25"}.items() <= dict(
        itertools.pairwise(tail)
    ).items()


def test_a_slightly_better_estimate_changes_no_container() -> None:
    """Shares are told in whole percent: a measurement of some megabytes replaces no worker that runs."""
    assert (75, 25) == shares((6 * GIB, 2 * GIB)) == shares((6 * GIB + 8 * MIB, 2 * GIB))
    assert (100, 1) == shares((1000 * GIB, MIB))
    assert () == shares(()) == shares((0, 0))


@pytest.mark.parametrize("name", WITH_GPU)
def test_the_worker_is_given_the_gpu_and_the_groups_that_may_open_it(name: str) -> None:
    """The container asks for the cards it lies on, or for the one GPU of a Jetson."""
    here = device(name)
    cards = () if here.unified else (OnCard(0, GIB),)

    worker = LLAMA.worker(model(cards=cards), replace(site(), device=here))

    assert here.requests((0,) if cards else ()) == worker.devices
    assert worker.devices
    assert here.gpu_groups == worker.groups
    assert "PCI_BUS_ID" == worker.env["CUDA_DEVICE_ORDER"]


def test_a_gpu_that_is_not_wanted_is_not_asked_for() -> None:
    """With no layers on the GPU the worker runs on the processors as it would without one, and is told so."""
    here = device("discrete-1")

    worker = LLAMA.worker(model(), replace(site(gpu_layers=0), device=here))

    assert ("--device", "none") == worker.argv[-2:]
    assert ((), ()) == (worker.devices, worker.groups)
    assert "CUDA_DEVICE_ORDER" not in worker.env
    assert estimate(NO_GPU) == estimate(here, gpu_layers=0)


def test_more_tokens_are_computed_at_once_on_a_gpu() -> None:
    """What is not set depends on where it runs; what is set, is."""
    found = {
        name: dict(itertools.pairwise(argv(name, **options)))["--ubatch-size"]
        for name, options in (("no-gpu", {}), ("orin-nano-jp7.2", {}), ("discrete-1", {}), ("discrete-2", {"ubatch_size": 64}))
    }

    assert {"no-gpu": "128", "orin-nano-jp7.2": "256", "discrete-1": "512", "discrete-2": "64"} == found


def test_a_card_holds_the_weights_and_the_box_hardly_anything() -> None:
    """Weights, KV cache, buffers and context are beside the box's memory, where the embeddings and the process stay."""
    here = estimate(device("discrete-1"))
    weights_bytes = header().weights_bytes

    assert weights_bytes + 512 * MIB < here.gpu_bytes < weights_bytes + 900 * MIB
    assert 0 == here.weights_bytes
    assert here.total_bytes == here.private_bytes < 272_269_312 + 640 * MIB
    assert 0 < here.gpu_each_bytes < here.gpu_bytes - weights_bytes
    assert Spread(counts=(2, 3, 4, 5, 6, 7, 8)) == here.spread


def test_on_unified_memory_there_is_one_figure_for_everything() -> None:
    """What the GPU holds is part of the total, nothing of it is a page of a file, and nothing lies on a card."""
    here = estimate(device("orin-nano-jp7.2"))

    assert (0, 0, Spread()) == (here.gpu_bytes, here.gpu_each_bytes, here.spread)
    assert (0, here.total_bytes) == (here.weights_bytes, here.private_bytes)
    # Weights, the table of embeddings, the driver's share in both places, buffers that weights pass, and the tokenizer.
    least_bytes = header().weights_bytes + 272_269_312 + (320 + 192 + 256) * MIB + 151_936 * 340
    assert least_bytes < here.total_bytes < least_bytes + 100 * MIB


@pytest.mark.parametrize("name", ["discrete-1", "orin-nano-jp7.2"])
def test_weights_that_come_through_the_page_cache_count_there(name: str) -> None:
    """The file is charged to the worker that reads it, so its limit must hold it; the staging buffers are smaller for it."""
    direct, cached = estimate(device(name)), estimate(device(name), gpu_load="cached")

    assert header().weights_bytes == cached.weights_bytes
    assert direct.private_bytes >= cached.private_bytes
    assert direct.gpu_bytes == cached.gpu_bytes
    assert "none" == dict(itertools.pairwise(argv(name, gpu_load="cached")))["--load-mode"]


def test_layers_that_stay_behind_are_in_the_box_and_not_on_the_card() -> None:
    """Half of the layers is half of the weights and of the KV cache."""
    whole, half = estimate(device("discrete-1")), estimate(device("discrete-1"), gpu_layers=12)
    moved_bytes = whole.gpu_bytes - half.gpu_bytes

    assert 0.5 * header().weights_bytes < moved_bytes < 0.57 * (header().weights_bytes + 60 * MIB)
    assert half.total_bytes - whole.total_bytes > 0.5 * header().weights_bytes


def test_heads_that_no_kernel_fuses_need_a_matrix_of_scores() -> None:
    """An odd head length costs buffers in proportion to the context."""
    here = device("discrete-1")
    fused, odd = (
        LLAMA.estimate(header(head_length=length, kv_heads=1, heads=8), context_tokens=8192, parallel=1, device=here).gpu_bytes
        for length in (64, 68)
    )

    assert odd - fused > 4 * 512 * 8192 * 8


@pytest.mark.parametrize("name", WITH_GPU)
@pytest.mark.parametrize("parallel", [1, 4])
def test_more_callers_never_need_less_on_a_gpu(name: str, parallel: int) -> None:
    """The figures grow with what is asked."""
    few, many = estimate(device(name), parallel=parallel), estimate(device(name), parallel=parallel + 1)

    assert (few.total_bytes, few.gpu_bytes) <= (many.total_bytes, many.gpu_bytes)


def test_quantised_embeddings_are_counted_with_the_bits_they_keep() -> None:
    """At 4 bits the embedding table, which stays with the processors, is stored better than the rest."""
    quantised = header(weights_bytes=header().parameters * 9 // 16)
    here = device("discrete-1")
    table_bytes = header().vocabulary * header().embedding_length

    found = LLAMA.estimate(quantised, context_tokens=2048, parallel=1, device=here)

    assert int(table_bytes * (2 - 1.4 * 9 / 16)) == pytest.approx(estimate(here).total_bytes - found.total_bytes, abs=MIB)


def test_the_embedding_of_a_whole_input_is_one_batch_on_a_gpu_too() -> None:
    """An embedding looks at its whole input at once, wherever it is computed."""
    worker = LLAMA.worker(model(api_paths=frozenset({ApiPath.EMBEDDINGS})), replace(site(), device=device("orin-nano-jp7.2")))

    assert "2000" == dict(itertools.pairwise(worker.argv))["--ubatch-size"]


@pytest.mark.parametrize("name", [name for name in WITH_GPU if not name.startswith("orin")])
def test_the_transformers_worker_is_told_of_the_gpu(name: str) -> None:
    """It asks for the same GPU, and says that it is to be used."""
    here = device(name)
    cards = () if here.unified else (OnCard(1, GIB),)

    worker = TORCH.worker(model(engine="transformers", cards=cards), replace(site(), device=here))

    assert ("--device", "cuda") == worker.argv[-2:]
    assert (here.requests((1,) if cards else ()), here.gpu_groups) == (worker.devices, worker.groups)
    assert "PCI_BUS_ID" == worker.env["CUDA_DEVICE_ORDER"]


def test_torch_stays_on_the_processors_of_an_orin() -> None:
    """Its wheels hold no code for that GPU: the worker is one as on a box without, and needs what it needs there."""
    orin = device("orin-nano-jp7.2")

    assert TORCH.worker(model(engine="transformers"), site()) == TORCH.worker(
        model(engine="transformers"), replace(site(), device=orin)
    )
    assert TORCH.estimate(header(), context_tokens=2048, parallel=1) == TORCH.estimate(
        header(), context_tokens=2048, parallel=1, device=orin
    )


@pytest.mark.parametrize("embeddings", [False, True])
def test_torch_takes_as_much_with_a_gpu_as_without_and_the_libraries(embeddings: bool) -> None:
    """Weights and whatever is computed move to the card; the process stays, grows by CUDA's libraries, and maps no weights."""
    processors, card, unified = (
        TORCH.estimate(header(embeddings=embeddings), context_tokens=2048, parallel=2, device=where)
        for where in (NO_GPU, device("discrete-1"), device("agx-thor-jp7.2"))
    )
    libraries_bytes = int(600 * MIB * 1.1)

    assert processors.total_bytes + libraries_bytes + 512 * MIB == pytest.approx(card.total_bytes + card.gpu_bytes, abs=4)
    assert card.total_bytes + card.gpu_bytes - 512 * MIB + 320 * MIB == pytest.approx(unified.total_bytes, abs=4)
    assert (0, 0, 0) == (card.weights_bytes, unified.weights_bytes, unified.gpu_bytes)
    assert (Spread(), Spread()) == (card.spread, unified.spread)
    assert card.gpu_bytes > header().weights_bytes + 512 * MIB
