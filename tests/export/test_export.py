"""Exports from end to end: what is written computes what the network does, or nothing is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.export.conftest import SIZE, SPACE, noise_images, small_network

from fleetseg.errors import ConfigError, ModelError
from fleetseg.evaluation.predict import forward
from fleetseg.export import export
from fleetseg.export.export import INT8, ONNX, PROGRAM, Exported, Int8, export_model
from fleetseg.export.graph import ExportedGraph
from fleetseg.export.onnx_graph import onnx_runner
from fleetseg.export.script import SCRIPT
from fleetseg.learning.adapters import add_adapters
from fleetseg.models.folder import load_model, weights_sha256
from fleetseg.runs.predict import predict

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(
    model_folder: Path, pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Both ONNX files of the small network."""
    return export_model(
        model_folder,
        out=tmp_path_factory.mktemp("exports") / "onnx",
        images=[pictures_folder],
        int8=Int8([pictures_folder], min_agreement=0.5),
    )


def test_any_number_of_camera_images_gives_the_logits_of_the_network(exported: Exported) -> None:
    run, model = onnx_runner(exported.folder / ONNX), small_network()
    for count in (1, 2, 5):
        images_NHWC = np.stack(noise_images(count))
        with torch.inference_mode():
            wanted = forward(model, images_NHWC, device="cpu", context=torch.inference_mode)
        got = run(images_NHWC)
        assert got.shape == tuple(wanted.shape)
        assert np.abs(got - wanted.numpy()).max() < 1e-4


def test_the_script_beside_it_predicts_as_fleetseg_does_without_it_and_without_torch(
    exported: Exported, model_folder: Path, pictures_folder: Path, tmp_path: Path
) -> None:
    pictures = sorted(pictures_folder.iterdir())
    script, out = exported.folder / SCRIPT, tmp_path / "out"
    alone = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['fleetseg'] = None\n"  # an import of them fails
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [str(script), str(exported.folder / ONNX), str(out), *map(str, pictures)]
    subprocess.run([sys.executable, "-c", alone, *words], check=True)
    wanted = predict(model_folder, pictures, device="cpu", precision="fp32")
    for path, ids_HW in zip(pictures, wanted, strict=True):
        with Image.open(out / path.name) as written:
            assert np.mean(np.asarray(written) == ids_HW) > 0.999
            assert written.getpalette()[:9] == [128, 64, 128, 64, 0, 128, 9, 8, 7]  # type: ignore[index]


def test_the_script_is_short_and_imports_nothing_of_ours() -> None:
    code = [line for line in export.TEXT.splitlines() if line.strip()]
    assert len(code) <= 42
    imported = [line.split()[1] for line in code if line.startswith(("import ", "from "))]
    assert set(imported) == {"json", "pathlib", "sys", "numpy", "onnxruntime", "PIL"}


def test_the_file_says_what_it_is(exported: Exported, model_folder: Path) -> None:
    told = {p.key: p.value for p in onnx.load(exported.folder / ONNX).metadata_props}
    assert json.loads(told["classes"]) == list(SPACE.classes)
    assert json.loads(told["colours"]) == [list(colour) for colour in SPACE.colours]
    assert json.loads(told["size_hw"]) == list(SIZE)
    assert json.loads(told["parity"])["pixels_of_the_same_class"] == exported.parity.agreement
    assert json.loads(told["protocol"]) is None  # it was never scored
    assert told["weights_sha256"] == weights_sha256(load_model(model_folder))
    eight = {p.key: p.value for p in onnx.load(exported.folder / INT8).metadata_props}
    assert {k: v for k, v in eight.items() if k not in ("parity", "calibrated_on")} == {
        k: v for k, v in told.items() if k != "parity"
    }
    assert eight["calibrated_on"] == "6 images"


def test_eight_bits_take_less_and_see_nearly_the_same(exported: Exported) -> None:
    assert exported.int8 is not None
    assert exported.parity.agreement == 1.0
    assert exported.int8.agreement > 0.9
    assert exported.int8.max_difference > exported.parity.max_difference
    assert set(exported.images_per_s) == {"torch", "onnx", "onnx int8"}
    nodes = onnx.load(exported.folder / INT8).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    weights = [made_by.get(node.input[1], "float") for node in nodes if node.op_type == "Conv"]
    assert weights == ["DequantizeLinear"] * 3 + ["float"]  # the last layer makes the logits


def test_a_program_of_torch_export_computes_the_same(
    model_folder: Path, pictures_folder: Path, tmp_path: Path
) -> None:
    done = export_model(
        model_folder, "torch-export", out=tmp_path / "out", images=[pictures_folder]
    )
    assert list(done.bytes_of) == [PROGRAM]
    assert done.parity.agreement == 1.0
    told: dict[str, str] = {"fleetseg.json": ""}
    program = torch.export.load(tmp_path / "out" / PROGRAM, extra_files=told)
    images_NHWC = np.stack(noise_images(3))
    logits = program.module()(torch.from_numpy(images_NHWC))
    with torch.inference_mode():
        wanted = forward(small_network(), images_NHWC, device="cpu", context=torch.inference_mode)
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert json.loads(json.loads(told["fleetseg.json"])["classes"]) == list(SPACE.classes)


def give(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file that was written before in place of a new one."""

    def write(graph: ExportedGraph, size_hw: tuple[int, int], path: Path) -> None:
        shutil.copy(exported.folder / ONNX, path)

    monkeypatch.setattr(export, "write_onnx", write)


def test_what_computes_something_else_is_not_left_there(
    exported: Exported, pictures_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(exported, monkeypatch)
    other = small_network()
    with torch.no_grad():
        other.net[3].bias[1] += 0.2  # type: ignore[index, union-attr]
    with pytest.raises(ModelError, match=r"does not compute what the network does.*2\.0e-01"):
        export_model(other, out=tmp_path / "out", images=[pictures_folder])
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_that_see_too_much_otherwise_leave_nothing(
    exported: Exported, pictures_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(exported, monkeypatch)
    black = tmp_path / "black.png"  # calibrated on it alone, all that is brighter is cut off
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(black)
    with pytest.raises(ModelError, match=r"8-bit model .* too many pixels differently"):
        export_model(
            small_network(),
            out=tmp_path / "out",
            images=[pictures_folder],
            int8=Int8([black], 0.999),
        )
    assert list(tmp_path.iterdir()) == [black]


def test_adapters_are_merged_and_the_model_itself_is_left_alone(
    pictures_folder: Path, tmp_path: Path
) -> None:
    model = small_network()
    add_adapters(model, rank=2, seed=0)
    with torch.no_grad():
        model.net[0][0].up.fill_(0.1)  # type: ignore[index]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    done = export_model(model, "torch-export", out=tmp_path / "out", images=[pictures_folder])
    assert done.parity.agreement == 1.0
    assert model.state_dict().keys() == before.keys()
    program = torch.export.load(tmp_path / "out" / PROGRAM)
    assert not [name for name in program.state_dict if name.endswith((".up", ".down"))]
    images_NHWC = np.stack(noise_images(2))
    with torch.inference_mode():
        wanted = forward(model, images_NHWC, device="cpu", context=torch.inference_mode)
        assert torch.allclose(program.module()(torch.from_numpy(images_NHWC)), wanted, atol=1e-4)


def test_bad_wishes_are_refused_before_any_work(
    model_folder: Path, pictures_folder: Path, tmp_path: Path
) -> None:
    out, images = tmp_path / "out", [pictures_folder]
    with pytest.raises(ConfigError, match=r"unknown format 'onx'.*Did you mean 'onnx'"):
        export_model(model_folder, "onx", out=out, images=images)
    with pytest.raises(ConfigError, match="8-bit export is only available for ONNX"):
        export_model(model_folder, "torch-export", out=out, images=images, int8=Int8(images))
    with pytest.raises(ConfigError, match=r"not in a run folder.*--images"):
        export_model(model_folder, out=out)
    with pytest.raises(ConfigError, match="unusable size"):
        export_model(model_folder, out=out, images=images, size_hw=(0, 4))
    with pytest.raises(ConfigError, match="has no folder"):
        export_model(small_network(), images=images)
    out.mkdir()
    (out / ONNX).write_text("mine")
    with pytest.raises(ConfigError, match=r"files exist already.*model\.onnx"):
        export_model(model_folder, out=out, images=images)
    assert (out / ONNX).read_text() == "mine"
