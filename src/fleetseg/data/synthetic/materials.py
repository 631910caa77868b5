"""Ids of the materials and CamVid-11 classes that the renderer uses."""

from __future__ import annotations

PLAIN, PLASTER, BRICK, TOWER, LEAVES, BARS, TILES, GLASS, BODY, EMIT, SHOP = range(11)
"""Materials of surfaces; `surfaces.py` defines how each looks."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
"""Train ids of CamVid-11."""
