"""How training images take on other vehicles' styles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleetseg.config.section import Section


class FdaConfig(Section):
    """Of the style fda."""

    window: int = Field(default=1, ge=0, le=32)  # b: -b .. b cycles an image, along both sides


class CfsiConfig(Section):
    """Of the style cfsi."""

    share: float = Field(default=0.05, gt=0, le=0.25)  # of an image's sides: the half-sizes


class StyleConfig(Section):
    """What a vehicle tells of how its images look, and how often images take on what others tell.

    See data.styles.
    """

    kind: Literal["none", "fda", "cfsi", "lab"] = "none"
    probability: float = Field(default=0.5, ge=0, le=1)  # of an image, each time it is trained on
    per: Literal["client", "image"] = "client"  # a vehicle tells one style, or one of each image
    images: int = Field(default=64, ge=1, le=4096)  # most that are measured, evenly over a vehicle
    # Standard deviation of the noise on a vehicle's style, in units of the most by which one image
    # can change it; 0 = none. Not of all vehicles' noise: each draws its own, once for good.
    noise: float = Field(default=0.0, ge=0)
    fda: FdaConfig = FdaConfig()
    cfsi: CfsiConfig = CfsiConfig()
