"""Labelled samples of the server that vehicles carry, for supervisions that learn from both."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.pool import open_source_stores
from fleetseg.data.sources import open_source
from fleetseg.data.store.store import Picked
from fleetseg.data.unusable import no_usable_sample


def open_carried(experiment: Experiment, space: LabelSpace) -> Picked:
    """Open the sources of the first stage, `[pretrain]`, at the fleet's working size.

    Bad samples are left out, and so are those without a label.

    Raises:
        DataError: a source without a usable labelled sample.
    """
    stores, places = [], list[tuple[int, int]]()
    for number, config in enumerate(experiment.pretrain.sources):
        source = open_source(config)
        (store,) = open_source_stores(source, experiment.data, space, (False,), None)
        good = [i for i in range(len(store)) if i not in store.bad and store.labelled[i]]
        if not good:
            raise no_usable_sample(source.name, store, "learn from")
        stores.append(store)
        places += [(number, i) for i in good]
    return Picked(tuple(stores), tuple(places))
