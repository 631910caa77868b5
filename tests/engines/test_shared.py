"""What workers are handed: one block of memory, whatever the number of tensors."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fleetseg.engines import shared
from fleetseg.engines.shared import SharedStates, with_tensors, with_values, without_values
from fleetseg.errors import CheckpointError, EngineError
from fleetseg.federation.tensors import layout_of, load_state, read_state


class Odd(nn.Module):
    """A network with all that a network may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tied = self.first
        self.norm = nn.BatchNorm2d(4)
        self.norm.weight.requires_grad = False
        self.register_buffer("constant", torch.tensor(0.25), persistent=False)
        self.register_buffer("none", None)
        self.kept = [torch.arange(3), {"mask": torch.tensor([True, False])}]
        self.half = torch.ones(2, 2, dtype=torch.bfloat16)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    held = dict(module.state_dict(keep_vars=True))
    plain: Any = module
    return {
        **held,
        "constant": plain.constant,
        "kept": plain.kept[0],
        "mask": plain.kept[1]["mask"],
        "half": plain.half,
    }


def test_a_model_arrives_as_it_was() -> None:
    model = Odd()
    layout = layout_of(model)
    state = read_state(model, layout)
    handed = without_values(model)
    assert not any(isinstance(value, Tensor) for value in handed.first._parameters.values())
    arrived = with_tensors(handed)
    load_state(arrived, layout, state)
    assert arrived.tied is arrived.first
    for name, tensor in tensors(model).items():
        other = tensors(arrived)[name]
        assert torch.equal(tensor, other), name
        assert (tensor.dtype, tensor.stride(), tensor.requires_grad, type(tensor)) == (
            other.dtype,
            other.stride(),
            other.requires_grad,
            type(other),
        ), name
        assert tensor.data_ptr() != other.data_ptr(), name
    assert arrived.none is None


def test_a_model_with_values_arrives_with_them_and_without_tensors_on_the_way() -> None:
    model = Odd()
    handed = with_values(model)
    assert not any(isinstance(value, Tensor) for value in handed.first._parameters.values())
    arrived = tensors(with_tensors(handed))
    assert all(torch.equal(tensor, arrived[name]) for name, tensor in tensors(model).items())


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_states_lie_beside_each_other(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "file":

        def none() -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(shared, "_anonymous", none)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no anonymous memory")
    assert shared.probe() == kind
    layout = layout_of(Odd())
    before = len(os.listdir("/proc/self/fd"))
    states = SharedStates(layout, 5)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    for place in range(5):
        states[place].values_F.fill_(place)
        states[place].counters_K.fill_(-place)
    for place in range(5):
        assert states[place].values_F.eq(place).all()
        assert states[place].counters_K.eq(-place).all()
        assert states[place].values_F.numel() == layout.num_floats
    kept = states[3]
    states.close()
    states.close()
    assert kept.values_F.eq(3).all()


def test_no_room_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(handle: int, num_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared, "_anonymous", none)
    monkeypatch.setattr(shared, "_reserve", full)
    with pytest.raises(EngineError, match=r"No space left.*Set TMPDIR .*--engine inprocess"):
        SharedStates(layout_of(Odd()), 2)


def test_too_many_open_files_is_not_taken_for_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shared, "_anonymous", none)
    from fleetseg.engines.starting import startable

    with pytest.raises(CheckpointError, match=r"ulimit -n"), startable():
        SharedStates(layout_of(Odd()), 2)


_LIMITED = """
import resource, sys
from pathlib import Path
import fleetseg
from fleetseg.experiment_file import load_experiment
if __name__ == "__main__":
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print(fleetseg.run(load_experiment(Path(sys.argv[2])), out=sys.argv[3]).model_sha256)
"""
_EXPERIMENT = """
[data]
size = [32, 32]
sources = [{ cities = ["amber"], conditions = ["day", "rain"], frames_per_drive = 2 }]
[training]
batch_size = 2
[federation]
rounds = 1
[engine]
kind = "workers"
workers = 2
"""


def _without_shm() -> list[str]:
    """Have a command find a `/dev/shm` without room, where this user may arrange for that."""
    hide = 'mount -t tmpfs -o size=4k,ro none /dev/shm && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", hide, "sh"]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a limit on open files")
@pytest.mark.parametrize("limit", [96, 12])
def test_a_limit_on_open_files_below_the_number_of_tensors(limit: int, tmp_path: Path) -> None:
    """Fast-SCNN has some 270 tensors; a limit that no run can live with is named."""
    (tmp_path / "e.toml").write_text(_EXPERIMENT)
    environment = {**os.environ, "FLEETSEG_CACHE": str(tmp_path / "cache")}
    words = [*_without_shm(), sys.executable, "-c", _LIMITED, str(limit), str(tmp_path / "e.toml")]
    done = subprocess.run(
        [*words, str(tmp_path / "run")], capture_output=True, text=True, env=environment
    )
    if limit == 96:
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.strip()) == 64
    else:
        assert done.returncode == 1
        assert "got a limit of 12 (ulimit -n)" in done.stderr.strip().splitlines()[-1]
