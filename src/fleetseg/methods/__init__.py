"""Presets: the methods of papers as fields of an experiment, one file per paper.

A method is a combination of independent choices (an objective, a sharing policy, a server optimiser
...), and a preset names them. Fields in an experiment's own file override the preset's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetseg.methods.ditto import DITTO
from fleetseg.methods.fda_pretrain import FDA_PRETRAIN
from fleetseg.methods.fedadagrad import FEDADAGRAD
from fleetseg.methods.fedadam import FEDADAM
from fleetseg.methods.fedavg import FEDAVG
from fleetseg.methods.fedavg_selftraining import FEDAVG_SELFTRAINING
from fleetseg.methods.fedavgm import FEDAVGM
from fleetseg.methods.fedbabu import FEDBABU
from fleetseg.methods.fedbn import FEDBN
from fleetseg.methods.fedcm import FEDCM
from fleetseg.methods.feddc import FEDDC
from fleetseg.methods.feddg_cfsi import FEDDG_CFSI
from fleetseg.methods.feddg_ga import FEDDG_GA
from fleetseg.methods.feddyn import FEDDYN
from fleetseg.methods.fedema import FEDEMA
from fleetseg.methods.fedexp import FEDEXP
from fleetseg.methods.fedfa import FEDFA
from fleetseg.methods.fedgau import FEDGAU
from fleetseg.methods.fednova import FEDNOVA
from fleetseg.methods.fedper import FEDPER
from fleetseg.methods.fedprox import FEDPROX
from fleetseg.methods.fedrep import FEDREP
from fleetseg.methods.fedsam import FEDSAM
from fleetseg.methods.fedseg import FEDSEG
from fleetseg.methods.fedspeed import FEDSPEED
from fleetseg.methods.fedyogi import FEDYOGI
from fleetseg.methods.fixbn import FIXBN
from fleetseg.methods.fl_uda import FL_UDA
from fleetseg.methods.hyperflaw_queue import HYPERFLAW_QUEUE
from fleetseg.methods.ifca import IFCA
from fleetseg.methods.ladd import LADD_ALL, LADD_CLS
from fleetseg.methods.mimelite import MIMELITE
from fleetseg.methods.mixstyle import MIXSTYLE
from fleetseg.methods.moon import MOON
from fleetseg.methods.preset import Preset
from fleetseg.methods.qffedavg import QFFEDAVG
from fleetseg.methods.scaffold import SCAFFOLD
from fleetseg.methods.silobn import SILOBN
from fleetseg.methods.silobn_lab import SILOBN_LAB
from fleetseg.methods.weak_to_strong import WEAK_TO_STRONG

METHODS: dict[str, Preset] = {
    "fedavg": FEDAVG,
    "fedavgm": FEDAVGM,
    "fedadam": FEDADAM,
    "fedyogi": FEDYOGI,
    "fedadagrad": FEDADAGRAD,
    "fedprox": FEDPROX,
    "scaffold": SCAFFOLD,
    "fednova": FEDNOVA,
    "fedexp": FEDEXP,
    "feddyn": FEDDYN,
    "feddc": FEDDC,
    "fedcm": FEDCM,
    "hyperflaw-queue": HYPERFLAW_QUEUE,
    "fedsam": FEDSAM,
    "moon": MOON,
    "fedspeed": FEDSPEED,
    "mimelite": MIMELITE,
    "fedseg": FEDSEG,
    "fixbn": FIXBN,
    "mixstyle": MIXSTYLE,
    "fedfa": FEDFA,
    "fedgau": FEDGAU,
    "feddg-ga": FEDDG_GA,
    "feddg-cfsi": FEDDG_CFSI,
    "qffedavg": QFFEDAVG,
    "fedper": FEDPER,
    "fedrep": FEDREP,
    "fedbabu": FEDBABU,
    "ditto": DITTO,
    "silobn": SILOBN,
    "silobn-lab": SILOBN_LAB,
    "fedbn": FEDBN,
    "fedema": FEDEMA,
    "ifca": IFCA,
    "fedavg-selftraining": FEDAVG_SELFTRAINING,
    "fda-pretrain": FDA_PRETRAIN,
    "ladd-cls": LADD_CLS,
    "ladd-all": LADD_ALL,
    "weak-to-strong": WEAK_TO_STRONG,
    "fl-uda": FL_UDA,
}


def laid_under(preset: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested fields: those of `fields` win, table by table.

    >>> laid_under({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "c": 4})
    {'a': {'x': 1, 'y': 5}, 'b': 3, 'c': 4}
    """
    merged = {**preset, **fields}
    for key in preset.keys() & fields.keys():
        if isinstance(preset[key], Mapping) and isinstance(fields[key], Mapping):
            merged[key] = laid_under(preset[key], fields[key])
    return merged
