"""Images that are not stored decoded: each is read from its own file on demand.

The same functions fill a decoded store, so the pixels are identical, bit for bit.
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
    """How to read the images of a source; sent to other processes without the samples."""

    source: Source
    size_hw: Size_HW
    checked_ns: int  # since the epoch: the time at which files matched their digests

    @classmethod
    def of(cls, source: Source, size_hw: Size_HW, checked_ns: int) -> ImageFiles:
        """Build this for a source, without its samples: callers of `read` have them."""
        return cls(dataclasses.replace(source, samples=()), size_hw, checked_ns)

    def read(self, sample: Sample, digest: str) -> Image_HWC:
        """Return an image at the working size.

        Raises:
            BadSample: the file cannot be read, or its content does not match `digest`.
        """
        if self._may_have_changed(sample) and self.source.digest(sample)[0] != digest:
            raise BadSample(
                "the file has changed since the run began",
                where=sample.image,
                cure="Do not change the files of a data set while data.store = 'files' reads them",
            )
        return resized_image(read_image_of(sample, self.source), self.size_hw)

    def _may_have_changed(self, sample: Sample) -> bool:
        """Compare timestamps, so that only doubtful files are read in full for their digest."""
        try:
            facts = os.stat(sample.image)
        except (OSError, ValueError):  # a recipe, or a missing file, which reading will report
            return False
        return max(facts.st_mtime_ns, facts.st_ctime_ns) > self.checked_ns - RACY_NS
