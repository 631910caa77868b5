"""How training images take on other vehicles' styles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleetseg.config.section import Section


class FdaConfig(Section):
    """Settings of the style fda."""

    window: int = Field(default=1, ge=0, le=32)  # b: -b .. b cycles per image, along both sides


class CfsiConfig(Section):
    """Settings of the style cfsi."""

    share: float = Field(default=0.05, gt=0, le=0.25)  # half-sizes, of an image's sides


class StyleConfig(Section):
    """The style that a vehicle reports, and how often images take on other vehicles' styles.

    See data.styles.
    """

    kind: Literal["none", "fda", "cfsi", "lab"] = "none"
    probability: float = Field(default=0.5, ge=0, le=1)  # per image, each time it is trained on
    per: Literal["client", "image"] = "client"  # one style per vehicle or per image
    images: int = Field(default=64, ge=1, le=4096)  # most measured, evenly over a vehicle
    # Standard deviation of the noise on a vehicle's style, in units of the largest change that one
    # image can make to it; 0 = none. Each vehicle draws its own noise, once and for good.
    noise: float = Field(default=0.0, ge=0)
    fda: FdaConfig = FdaConfig()
    cfsi: CfsiConfig = CfsiConfig()
