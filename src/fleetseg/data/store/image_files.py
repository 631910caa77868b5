"""Images that are not kept decoded: each is read from its own file whenever it is wanted.

The functions are those that fill a decoded store, so the pixels are the same, bit for bit.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from fleetseg.data.sample import Image_HWC, Sample, Source
from fleetseg.data.store.decoding import Size_HW, read_image_of, resized_image
from fleetseg.data.store.digests import RACY_NS
from fleetseg.errors import BadSample


@dataclass(frozen=True)
class ImageFiles:
    """How to read the images of a source; crosses to another process without its samples."""

    source: Source
    size_hw: Size_HW
    checked_ns: int  # since the epoch: the files were then what their digests say

    @classmethod
    def of(cls, source: Source, size_hw: Size_HW, checked_ns: int) -> ImageFiles:
        """Leave the samples out: whoever asks has them."""
        return cls(dataclasses.replace(source, samples=()), size_hw, checked_ns)

    def read(self, sample: Sample, digest: str) -> Image_HWC:
        """Return an image at the working size.

        Raises:
            BadSample: the file cannot be read, or has another content than `digest` says.
        """
        if self._may_have_changed(sample) and self.source.digest(sample)[0] != digest:
            raise BadSample(
                "the file has changed since the run began",
                where=sample.image,
                cure="Leave the files of a data set alone while data.store = 'files' reads them",
            )
        return resized_image(read_image_of(sample, self.source), self.size_hw)

    def _may_have_changed(self, sample: Sample) -> bool:
        """Compare clocks only: reading a whole file for its digest is for those in doubt."""
        try:
            facts = os.stat(sample.image)
        except (OSError, ValueError):  # a recipe, or a file that is gone, as reading it will tell
            return False
        return max(facts.st_mtime_ns, facts.st_ctime_ns) > self.checked_ns - RACY_NS
