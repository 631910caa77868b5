"""Replace batch norms by group norms, which have no statistics to keep or to average.

Wu, He 2018, Group Normalization, arXiv 1803.08494.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg.config import ModelConfig
from fleetseg.errors import ModelError
from fleetseg.models.layers import SafeBatchNorm2d
from fleetseg.models.segmenter import Segmenter

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SafeBatchNorm2d)
_FEWEST = 4  # channels per group: with one channel, a 1x1 feature minus its mean is always 0


def use_group_norms(segmenter: Segmenter, groups: int) -> None:
    """Replace every batch norm by a group norm of at most `groups` groups, in place.

    Gains, biases and eps are kept, running statistics are dropped: a pretrained network computes
    something else afterwards and has to be trained.

    Raises:
        ModelError: a batch norm does more than that, such as an activation.
    """
    made: dict[_BatchNorm, nn.GroupNorm] = {}
    for name, module in list(segmenter.named_modules(remove_duplicate=False)):
        if not isinstance(module, _BatchNorm):
            continue
        if type(module) not in _PLAIN:
            raise ModelError(
                f"a {type(module).__name__} does more than a batch norm, so a group norm cannot "
                "replace it",
                where=name.removeprefix("net."),
                cure="Use model.norm = 'batch', or another network",
            )
        owner, _, own_name = name.rpartition(".")
        if module not in made:  # keep a shared layer shared
            made[module] = _group_norm(module, groups)
        setattr(segmenter.get_submodule(owner), own_name, made[module])
    segmenter.norm_groups = groups


def wished_groups(config: ModelConfig) -> int:
    """Return the number of groups that an experiment requests; 0 = batch norms stay."""
    return config.norm_groups if config.norm == "group" else 0


def _group_norm(norm: _BatchNorm, groups: int) -> nn.GroupNorm:
    channels = norm.num_features
    made = nn.GroupNorm(group_count(channels, groups), channels, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    return made.train(norm.training)


def group_count(channels: int, most: int) -> int:
    """Return the largest number of equal groups, at most `most`, with at least four channels each.

    >>> [group_count(channels, 32) for channels in (256, 128, 48, 10, 7, 3)]
    [32, 32, 12, 2, 1, 1]
    """
    fewest = min(_FEWEST, channels)
    return next(
        count for count in range(min(most, channels // fewest), 0, -1) if channels % count == 0
    )
