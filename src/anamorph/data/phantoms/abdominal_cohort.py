"""Patients of the abdominal phantom as a cohort."""

from __future__ import annotations

from dataclasses import replace

from anamorph.data.cohort import Split
from anamorph.data.image import Labelmap
from anamorph.data.phantoms.abdominal_patient import LABEL_NAMES
from anamorph.data.phantoms.abdominal_scans import abdomen
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.options import AbdomenOptions

PATIENTS = 100_000
"""Case ``i`` of seed ``s`` is ``abdomen(PATIENTS * s + i)``."""
LIVER = 2
"""The first so many labels are the liver and its tumour."""


class Abdomen(Phantom[AbdomenOptions]):
    """A CT, which is the fixed image, and an MR of each patient. Patients are built anew, so there is no template."""

    def __init__(self, options: AbdomenOptions, seed: int) -> None:
        super().__init__(options, seed)
        last = LIVER if options.structures == "liver" else len(LABEL_NAMES)
        self.label_names = {label: name for label, name in LABEL_NAMES.items() if label <= last}

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """One patient in two positions."""
        pair = abdomen(
            PATIENTS * self.seed + index,
            fixed_spacing=self.options.ct_spacing,
            moving_spacing=self.options.mr_spacing,
            mean_mm=self.options.mean_mm,
            protocol=self.options.protocol,
        )
        scans = (
            PhantomScan(pair.fixed, self._told(pair.fixed_labels), pair.fixed_landmarks),
            PhantomScan(pair.moving, self._told(pair.moving_labels), pair.moving_landmarks),
        )
        return PhantomCase(scans, (pair.truth,))

    def _told(self, labels: Labelmap) -> Labelmap:
        """Those labels that are asked for."""
        data = labels.data.where(labels.data <= max(self.label_names), 0)
        return replace(labels, data=data, names=self.label_names)
