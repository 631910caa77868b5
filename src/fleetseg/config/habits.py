"""What published systems do and fleetseg does not: switches to reproduce their figures, all off.

Each comment says whose habit it is; what was found in their code is in docs/reproduce.md.
"""

from __future__ import annotations

from fleetseg.config.section import Section


class HabitsConfig(Section):
    """Habits of other systems in local training."""

    # FedDrive, LADD, FedSeg: an epoch has only whole batches, and leaves the other images out. Here
    # a client with fewer images than a batch has one short batch; in their code it trains on none.
    drop_last: bool = False
    # FedDrive, LADD: an epoch has the same order in every round, and so the same images left over.
    same_order: bool = False
    # FedDrive: an epoch has each image twice, as it is and mirrored; goes with flip = false.
    doubled: bool = False
    # FedDrive, FedSeg: the "RandomResizedCrop" of their code: the whole image is resized without
    # a filter, what is missing is black and on both sides.
    unfiltered_crop: bool = False
    # FedDrive: weight decay on norms and biases, too.
    decay_all: bool = False
