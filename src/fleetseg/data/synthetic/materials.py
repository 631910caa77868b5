"""Numbers of the materials and of the CamVid-11 classes that the painter uses."""

from __future__ import annotations

PLAIN, PLASTER, BRICK, TOWER, LEAVES, BARS, TILES, GLASS, BODY, EMIT, SHOP = range(11)
"""What a surface is made of; `surfaces.py` says how each looks."""

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
"""Train ids of CamVid-11."""
