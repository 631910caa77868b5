"""What published systems do and fleetseg does not: switches to reproduce their results, all off.

Each comment names the systems; docs/reproduce.md documents what was found in their code.
"""

from __future__ import annotations

from fleetseg.config.section import Section


class HabitsConfig(Section):
    """Habits of other systems in local training."""

    # FedDrive, LADD, FedSeg: an epoch has only whole batches and leaves the other images out. Here
    # a client with fewer images than a batch has one short batch; in their code it trains on none.
    drop_last: bool = False
    # FedDrive, LADD: epochs have the same order in every round, and so leave out the same images.
    same_order: bool = False
    # FedDrive: an epoch has each image twice, unchanged and mirrored; use with flip = false.
    doubled: bool = False
    # FedDrive, FedSeg: the "RandomResizedCrop" of their code: the whole image is resized without
    # a filter, and padded with black on both sides.
    unfiltered_crop: bool = False
    # FedDrive: weight decay on norms and biases, too.
    decay_all: bool = False
