"""A saved model: a self-contained folder with everything that is needed to use it.

    model.safetensors   the state dict; the same model gives the same bytes
    config.json         network, label space, input normalisation and size, who wrote it
    README.md           the model card: scores, data, what left the vehicles, weak spots
    cluster-0.safetensors ...  the tensors specific to clusters of vehicles, if there are any

Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from fleetseg._version import __version__
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ConfigError, ModelError
from fleetseg.files import read_json, write_atomic
from fleetseg.models.build import build_model, is_known, wrap
from fleetseg.models.card import card_text
from fleetseg.models.cluster_files import Tensors, read_cluster, write_clusters
from fleetseg.models.group_norm import use_group_norms
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.wrapping import materialise
from fleetseg.text import listing

FORMAT = 1
"""Format version of config.json; readers refuse unknown versions."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"


def save_model(
    segmenter: Segmenter,
    folder: Path,
    *,
    space: LabelSpace,
    size_hw: tuple[int, int],
    details: Mapping[str, Any],
    untrained: Sequence[str] = (),
    clusters: Sequence[Tensors] = (),
    record: Mapping[str, Any] | None = None,
) -> str:
    """Write the files, each atomically; return the SHA-256 of the weights.

    Args:
        segmenter: any network.
        folder: created if missing.
        space: meaning of the output channels, in order.
        size_hw: working (height, width) of training, in pixels.
        details: facts about the training, plain JSON values.
        untrained: state-dict keys that stayed on clients, so that the model has their start values.
        clusters: the tensors that each cluster of vehicles replaces, by state-dict key.
        record: what the card says about the run: see `card`.

    Raises:
        ModelError: the network and the label space differ in their number of classes.
        CheckpointError: the disk is full.
    """
    _require_same_classes(segmenter, space, folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = _weights(segmenter)
    sha256 = hashlib.sha256(weights).hexdigest()
    config = _config(segmenter, space, size_hw, details, record or {})
    if untrained:
        config["untrained"] = list(untrained)
        details = {**details, "stayed with the clients": f"{len(untrained)} tensors ({CONFIG})"}
    if clusters:
        config["clusters"] = write_clusters(folder, clusters)
        loaded = f"load_model(..., cluster=0) to cluster={len(clusters) - 1}"
        details = {**details, "clusters of vehicles with models of their own": loaded}
    parameters = sum(p.numel() for p in segmenter.parameters())
    write_atomic(folder / CARD, card_text(config, details, parameters, sha256))
    write_atomic(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / WEIGHTS, weights)
    return sha256


def _require_same_classes(segmenter: Segmenter, space: LabelSpace, folder: Path) -> None:
    if segmenter.num_classes != space.num_classes:
        raise ModelError(
            "the network and the label space have different numbers of classes",
            where=folder,
            got=segmenter.num_classes,
            expected=f"{space.num_classes} ({space.name})",
        )


def load_model(
    path: Path | str, net: nn.Module | None = None, cluster: int | None = None
) -> Segmenter:
    """Load a saved model in eval mode, with `.space`, `.size_hw` and `.untrained` set.

    Args:
        path: a model folder, or a run folder that has one in `model/`.
        net: the network, for a model that `build_model` does not know; its weights are replaced.
        cluster: number of the cluster of vehicles whose model to load; None = the fleet's.

    Raises:
        ModelError: there is no such cluster, a file is missing, damaged or of another version, or
            the weights do not fit.
        MissingExtra: the network needs a package that is not installed.
    """
    folder = find_model(Path(path))
    config = _read_config(folder / CONFIG)
    tensors = _read_weights(folder / WEIGHTS)
    own = {} if cluster is None else read_cluster(folder, config, cluster)
    try:
        segmenter = _build(config, net, folder)
        space = _space(config["label_space"])
        size_hw = (int(config["input"]["size_hw"][0]), int(config["input"]["size_hw"][1]))
        norm_groups = int(config.get("norm_groups", 0))
        untrained = tuple(str(key) for key in config.get("untrained", ()))
        details, record = dict(config.get("details", {})), dict(config.get("record", {}))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            "damaged or foreign model config", where=folder / CONFIG, got=repr(error)
        ) from None
    materialise(segmenter, size_hw)
    if norm_groups and not segmenter.norm_groups:
        use_group_norms(segmenter, norm_groups)
    _check_fit({**tensors, **own}, segmenter.state_dict(), folder / WEIGHTS)
    segmenter.load_state_dict({**tensors, **own})
    segmenter.space, segmenter.size_hw, segmenter.untrained = space, size_hw, untrained
    segmenter.details, segmenter.record = details, record
    return segmenter.eval()


def save_again(segmenter: Segmenter, folder: Path) -> str:
    """Write a loaded model to another folder with all metadata of its own; like `save_model`.

    Raises:
        ModelError: the model was not loaded, so the meaning of its classes is unknown.
        CheckpointError: the disk is full.
    """
    if segmenter.space is None or segmenter.size_hw is None:
        raise ModelError(
            "the model does not say its label space and size",
            where=segmenter.name,
            cure="Load it with fleetseg.load_model, or set .space and .size_hw",
        )
    return save_model(
        segmenter,
        folder,
        space=segmenter.space,
        size_hw=segmenter.size_hw,
        details=segmenter.details,
        untrained=segmenter.untrained,
        record=segmenter.record,
    )


def weights_sha256(segmenter: Segmenter) -> str:
    """Return the SHA-256 that `save_model` would return."""
    return hashlib.sha256(_weights(segmenter)).hexdigest()


def _weights(segmenter: Segmenter) -> bytes:
    return save({key: _plain(value) for key, value in segmenter.state_dict().items()})


def _plain(tensor: Tensor) -> Tensor:
    # Copy in the default memory order: bytes must not depend on device or memory format.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _config(
    segmenter: Segmenter,
    space: LabelSpace,
    size_hw: tuple[int, int],
    details: Mapping[str, Any],
    record: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "fleetseg": __version__,
        # Readers of Hugging Face folders look for this.
        "model_type": "fleetseg",
        "id2label": {str(number): name for number, name in enumerate(space.classes)},
        "label2id": {name: number for number, name in enumerate(space.classes)},
        "model": segmenter.name,
        "num_classes": segmenter.num_classes,
        "stride": segmenter.stride,
        "head_prefixes": list(segmenter.head_prefixes),
        "label_space": {
            "name": space.name,
            "classes": list(space.classes),
            "colours": [list(colour) for colour in space.colours],
            "critical": list(space.critical),
        },
        "input": {
            "channels": "RGB",
            "range": [0.0, 1.0],
            "mean": segmenter.mean.flatten().tolist(),
            "std": segmenter.std.flatten().tolist(),
            "size_hw": list(size_hw),
        },
        "details": dict(details),
        **({"record": dict(record)} if record else {}),
        **({"norm_groups": segmenter.norm_groups} if segmenter.norm_groups else {}),
    }


def find_model(path: Path) -> Path:
    """Return the folder of a saved model: `path` itself, or a run's `model/`.

    Raises:
        ModelError: there is none.
    """
    for folder in (path, path / "model"):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    raise ModelError(
        "no saved model here",
        where=path,
        expected=f"a folder with {WEIGHTS} and {CONFIG}, or a finished run with model/",
        cure=f"Finish its run: fleetseg run --resume --out {shlex.quote(str(path))}"
        if (path / "experiment.toml").is_file()
        else None,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except ValueError as error:
        raise ModelError("damaged model config", where=path, got=str(error)) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelError(
            "unknown format of model config",
            where=path,
            got=found,
            expected=FORMAT,
            cure="A newer fleetseg may have written it: upgrade fleetseg",
        )
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ModelError(
            f"truncated or damaged weights ({error})", where=path, cure="Copy the file again"
        ) from None


def _build(config: Mapping[str, Any], net: nn.Module | None, folder: Path) -> Segmenter:
    name, num_classes = str(config["model"]), int(config["num_classes"])
    if net is None and not is_known(name):
        raise ModelError(
            f"network '{name}' is the user's own, and only its weights are saved",
            where=folder,
            cure="Give the network: load_model(path, net=...)",
        )
    if net is None:
        try:
            segmenter = build_model(name, num_classes)
        except ConfigError as error:
            raise ModelError(f"cannot build the saved network: {error}", where=folder) from None
    else:
        net = net.net if isinstance(net, Segmenter) else net
        segmenter = wrap(net, num_classes, name=name, stride=int(config["stride"]))
        segmenter.head_prefixes = tuple(str(prefix) for prefix in config["head_prefixes"])
    segmenter.mean.copy_(torch.tensor(config["input"]["mean"]).view(1, 3, 1, 1))
    segmenter.std.copy_(torch.tensor(config["input"]["std"]).view(1, 3, 1, 1))
    return segmenter


def _space(fields: Mapping[str, Any]) -> LabelSpace:
    return LabelSpace(
        name=str(fields["name"]),
        classes=tuple(str(name) for name in fields["classes"]),
        colours=tuple((int(r), int(g), int(b)) for r, g, b in fields["colours"]),
        critical=tuple(str(name) for name in fields["critical"]),
    )


def _check_fit(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], where: Path) -> None:
    missing = [key for key in state if key not in tensors]
    unexpected = [key for key in tensors if key not in state]
    misfits = [
        f"{key} {_kind(tensors[key])} instead of {_kind(state[key])}"
        for key in state
        if key in tensors and _kind(tensors[key]) != _kind(state[key])
    ]
    parts = {"missing": missing, "unexpected": unexpected, "wrong shape or type": misfits}
    problems = [f"{len(keys)} {kind}: {listing(keys, 8)}" for kind, keys in parts.items() if keys]
    if problems:
        raise ModelError(
            f"the saved weights do not fit the network ({'; '.join(problems)})",
            where=where,
            cure="Give the network that was trained, with the same number of classes",
        )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
