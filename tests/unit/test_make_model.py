"""The model maker, on the tiny shape: what it writes is what the headers say, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from bench import make_model
from bench.make_model import MakeError, Order
from bench.shapes import SHAPES, Dtype


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """Return the order for a tiny model in a folder of the test's own."""
    return Order(shape_name="tiny", dtype=Dtype.BF16, folder=tmp_path / "tiny", name="tiny")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[Dtype, gguf.GGUFReader]:
    """Return one tiny model of every type, read back; reading is the slow part."""
    folder = tmp_path_factory.mktemp("packed")
    orders = [Order(shape_name="tiny", dtype=dtype, folder=folder / dtype, name="some-name") for dtype in Dtype]
    return {order.dtype: read(make_model.make(order)) for order in orders}


def read(path: Path) -> gguf.GGUFReader:
    """Open a GGUF with the reader of the format's own package."""
    return gguf.GGUFReader(path)


class TestShapes:
    @pytest.mark.parametrize(("name", "parameters"), [("qwen2-0.5b", 494_032_768), ("qwen2-1.5b", 1_543_714_304)])
    def test_parameters_are_those_of_the_published_models(self, name: str, parameters: int) -> None:
        """A shape has exactly as many weights as the published model of its name."""
        shape = SHAPES[name]

        assert parameters == shape.parameters

    @pytest.mark.parametrize("name", SHAPES)
    def test_rows_are_whole_blocks(self, name: str) -> None:
        """Every row is a whole number of blocks of 32 values, or it could not be quantised."""
        assert {0} == {tensor.columns % 32 for tensor in SHAPES[name].tensors()}


class TestGguf:
    @pytest.mark.parametrize("dtype", Dtype)
    def test_tensors_are_as_large_as_their_type_says(self, packed: dict[Dtype, gguf.GGUFReader], dtype: Dtype) -> None:
        """Every tensor read back has the size of its shape in its type, and the file ends with the last one."""
        tensors = packed[dtype].tensors
        sizes = {tensor.name: tensor.n_bytes for tensor in tensors}
        end = max(tensor.data_offset + tensor.n_bytes for tensor in tensors)
        expected = {
            tensor.name: tensor.columns * 4
            if tensor.is_vector
            else tensor.count_bytes(Dtype.Q8_0 if dtype is Dtype.Q4_0 and tensor.name == "token_embd.weight" else dtype)
            for tensor in SHAPES["tiny"].tensors()
        }
        assert expected == sizes
        assert end + -end % 32 == packed[dtype].data.nbytes

    def test_metadata_names_the_architecture_and_the_model(self, packed: dict[Dtype, gguf.GGUFReader]) -> None:
        """The header says which architecture, which name, and how long a context."""
        fields = packed[Dtype.BF16].fields

        assert ["qwen2", "some-name", 2048] == [
            fields[key].contents() for key in ("general.architecture", "general.name", "qwen2.context_length")
        ]

    def test_vocabulary_fills_the_shape(self, packed: dict[Dtype, gguf.GGUFReader]) -> None:
        """There is a token for every row of the embedding, no two of them the same."""
        tokens = packed[Dtype.BF16].fields["tokenizer.ggml.tokens"].contents()

        assert [SHAPES["tiny"].vocab] * 2 == [len(tokens), len(set(tokens))]

    @pytest.mark.parametrize("dtype", Dtype)
    def test_weights_are_sane(self, packed: dict[Dtype, gguf.GGUFReader], dtype: Dtype) -> None:
        """Matrices read back are small numbers around zero, whatever they were packed in."""
        tensor = next(tensor for tensor in packed[dtype].tensors if tensor.name == "blk.0.ffn_up.weight")

        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert (128, 64) == values.shape
        assert 0.015 < values.std() < 0.025
        assert np.abs(values).max() < 0.2

    def test_same_seed_gives_the_same_file(self, order: Order, tmp_path: Path) -> None:
        """Two runs with one seed write the same bytes."""
        one, two = (make_model.make(replace(order, folder=tmp_path / folder)) for folder in ("one", "two"))

        assert one.read_bytes() == two.read_bytes()

    def test_other_seed_gives_other_weights_everywhere(self, order: Order, packed: dict[Dtype, gguf.GGUFReader]) -> None:
        """Models of different seeds share no matrix."""
        one, two = packed[Dtype.BF16].tensors, read(make_model.make(replace(order, seed=2))).tensors

        assert not [
            a.name for a, b in zip(one, two, strict=True) if not a.name.endswith("bias") and np.array_equal(a.data, b.data)
        ]


class TestSafetensors:
    def test_header_covers_the_file(self, order: Order) -> None:
        """The header's offsets are gapless and end where the file ends."""
        path = make_model.make(replace(order, as_safetensors=True))

        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        assert [0, *(end for _, end in spans[:-1])] == [start for start, _ in spans]
        assert len(data) == 8 + length + spans[-1][1]

    def test_vocabulary_of_checkpoint_fills_the_shape(self, order: Order) -> None:
        """The tokenizer beside the checkpoint knows a token for every row of the embedding."""
        path = make_model.make(replace(order, as_safetensors=True))

        tokenizer = json.loads(path.with_name("tokenizer.json").read_text())

        assert SHAPES["tiny"].vocab == len(tokenizer["model"]["vocab"])


class TestRefusals:
    def test_existing_folder_is_left_alone(self, order: Order) -> None:
        """A folder that exists is never written to."""
        order.folder.mkdir()

        with pytest.raises(MakeError, match="exists already"):
            make_model.make(order)

        assert [] == list(order.folder.iterdir())

    def test_full_disk_leaves_nothing_behind(self, order: Order) -> None:
        """When writing fails, neither the folder nor the temporary one remains, and the text gives the reason."""

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(MakeError, match="No space left on device"):
            make_model.make(order, full)

        assert [] == list(order.folder.parent.iterdir())


class TestCommandLine:
    def test_json_tells_file_and_size(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With --json one line says where the file is and how large it is."""
        status = make_model.main(["--shape", "tiny", "--dtype", "q4_0", "--out", str(tmp_path / "m"), "--json"])

        said = json.loads(capsys.readouterr().out)
        assert (0, str(tmp_path / "m/m.gguf"), (tmp_path / "m/m.gguf").stat().st_size) == (status, said["file"], said["bytes"])

    def test_refusal_is_a_sentence_and_a_status(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A refusal ends with status 1 and says why on the error stream."""
        status = make_model.main(["--shape", "tiny", "--out", str(tmp_path)])

        assert (1, True) == (status, "exists already" in capsys.readouterr().err)

    def test_quantised_checkpoint_is_refused(self, tmp_path: Path) -> None:
        """A safetensors checkpoint is made in bf16 only."""
        arguments = ["--shape", "tiny", "--format", "safetensors", "--dtype", "q8_0", "--out", str(tmp_path / "m")]

        with pytest.raises(SystemExit):
            make_model.main(arguments)
