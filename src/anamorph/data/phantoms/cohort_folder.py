"""The folder of a cohort of phantoms.

=======================================  =================================================================
``cohort.csv``, ``pairs.csv``            one row a scan; one row a pair whose true map is known
``labels.csv``                           what each label is
``images labels masks landmarks``        folders of files ``CASE_MODALITY``
``maps/FIXED-MOVING.nii.gz``             true map of a pair on the fixed grid: an ITK displacement field
``maps/CASE_MODALITY-template.nii.gz``   true map from a scan to the template, where there is one
``template/image.nii.gz`` ...            the template, which is no scan of the cohort
``phantom.json``                         kind, seed, options, version, what each label is
=======================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from anamorph.data.cohort import Cohort, Pair, Scan, Split
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import write
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.phantoms.case import PhantomCase, PhantomScan
from anamorph.data.transform_files import write_transform
from anamorph.spatial.transform import Transform


class CohortFolder:
    """Cases written one after the other, and what stands in the tables at the end.

    Args:
        root: the folder; it is made if need be.
        with_maps: whether the true maps are written.
    """

    def __init__(self, root: Path, *, with_maps: bool) -> None:
        self.root, self.with_maps = root, with_maps
        self.scans: list[Scan] = []
        self.pairs: list[Pair] = []
        root.mkdir(parents=True, exist_ok=True)

    def add_template(self, template: PhantomScan) -> None:
        """Write what the subjects are deformations of."""
        self._write(template, {kind: f"template/{kind}" for kind in ("image", "labels", "mask", "landmarks")})

    def add(self, case: PhantomCase, name: str, split: Split) -> None:
        """Write a case and its true maps."""
        scans = [self._write_scan(scan, name, split) for scan in case.scans]
        maps = [(0, number, truth) for number, truth in enumerate(case.truth, 1)]
        maps += [(number, 0, back) for number, back in enumerate(case.back, 1)]
        pairs = [Pair(scans[fixed], scans[moving]) for fixed, moving, _ in maps]
        if self.with_maps:
            for scan, phantom in zip(scans, case.scans, strict=True):
                if phantom.to_template is not None:
                    self._write_map(phantom.to_template, f"{scan.name}-template", phantom)
            for number, (fixed, _, truth) in enumerate(maps):
                path = self._write_map(truth, pairs[number].name, case.scans[fixed])
                pairs[number] = replace(pairs[number], displacement=path)
        self.scans += scans
        self.pairs += pairs

    def finished(self, label_names: Mapping[int, str]) -> Cohort:
        """Write the tables."""
        scans = sorted(self.scans, key=lambda scan: (scan.case, scan.modality))
        cohort = Cohort(self.root, tuple(scans), tuple(self.pairs), label_names)
        write_cohort(cohort, self.root)
        return cohort

    def _write_scan(self, phantom: PhantomScan, case: str, split: Split) -> Scan:
        scan = Scan(case, phantom.image.modality or "image", self.root, split=split)
        stems = {kind: f"{kind}s/{scan.name}" for kind in ("image", "mask")}
        stems |= {kind: f"{kind}/{scan.name}" for kind in ("labels", "landmarks")}
        return replace(scan, **self._write(phantom, stems))

    def _write(self, phantom: PhantomScan, stems: Mapping[str, str]) -> dict[str, Path]:
        """Write what there is under the given stems; returns the files."""
        files = {}
        for kind in ("image", "labels", "mask"):
            item = getattr(phantom, kind)
            if item is not None:
                files[kind] = self._path(f"{stems[kind]}.nii.gz")
                write(item, files[kind])
        if phantom.landmarks is not None:
            files["landmarks"] = self._path(f"{stems['landmarks']}.csv")
            write_landmarks(phantom.landmarks, files["landmarks"])
        return files

    def _write_map(self, transform: Transform, name: str, fixed: PhantomScan) -> Path:
        path = self._path(f"maps/{name}.nii.gz")
        write_transform(transform, path, fixed.image.grid, overwrite=True)
        return path

    def _path(self, name: str) -> Path:
        """A file of the cohort, whose folder is there."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        return path
