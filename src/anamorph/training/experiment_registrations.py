"""Single pairs of a table of registrations to look at: what every method makes of them.

An evaluation keeps scores alone, so these few are registered again; their maps are kept under ``pictures``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Integer

from anamorph.data.cohort import Pair, Scan
from anamorph.data.files import file_state, read, read_labels
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import counted_as
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.errors import AnamorphError, AnamorphWarning
from anamorph.inference.contenders import Registrar
from anamorph.inference.model_folder import read_model
from anamorph.inference.warp import warp
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Field, Transform
from anamorph.training.experiment import model_of, registering
from anamorph.training.experiment_cases import FOLDER
from anamorph.training.experiment_cohort import parts_of
from anamorph.training.experiment_recipe import Experiment
from anamorph.training.experiment_rows import ALIGNMENTS, Judged
from anamorph.training.experiment_translations import pair_of

Labels = Integer[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Warped:
    """The moving image on the fixed grid.

    Args:
        image: brought there.
        labels: likewise, I J (K); None where a side has none.
        displacement_mm: the map, fixed -> moving, d I J (K), RAS mm.
    """

    image: Image
    labels: Labels | None
    displacement_mm: Float[np.ndarray, "ndim ..."]


@dataclass(frozen=True, eq=False)
class RegistrationShown:
    """A pair as files and methods have it.

    Args:
        fixed: image.
        truth: its labels, those that the table is about, I J (K); None where a side has none.
        before: the moving image as its header places it.
        found: method -> the moving image as that places it; methods that failed are left out.
        names: label -> name.
    """

    fixed: Image
    truth: Labels | None
    before: Warped
    found: Mapping[str, Warped]
    names: Mapping[int, str]


def show_registrations(
    experiment: Experiment,
    folder: Path,
    cases: Sequence[str],
    rows: Sequence[str],
    device: str,
    threads: int,
    progress: Progress | None = None,
) -> dict[str, RegistrationShown]:
    """Register some pairs by some methods, unless that is done.

    Args:
        experiment: that has been run.
        folder: of its files.
        cases: names as in the scores.
        rows: methods of the table, in this order.
        device: to compute on.
        threads: CPU threads of the other tools.
        progress: told the share that is done.
    """
    parts = parts_of(experiment, folder)
    shown = {}
    for done, case in enumerate(cases):
        if progress is not None:
            progress(FOLDER, done / len(cases))
        part, pair = pair_of(case, experiment, parts)
        models = {name: read_model(model_of(part.folder, name), device) for name in experiment.train}
        methods = {one.name: one for one in registering(experiment, models, device, threads, rows, folder / ALIGNMENTS)}
        fixed, moving = (read(scan.image, modality=scan.modality) for scan in (pair.fixed, pair.moving))
        labels = [_labels(scan, experiment) for scan in (pair.fixed, pair.moving) if scan.labels is not None]
        names = _names(experiment, Judged.of(experiment, part).names, labels)
        truth, there = labels if len(labels) == 2 else (None, None)
        maps = {name: _found(methods[name], pair, fixed, moving, folder / FOLDER) for name in rows}
        found = {name: _placed(moving, there, one, fixed.grid) for name, one in maps.items() if one is not None}
        before = _placed(moving, there, Affine.identity(fixed.grid.ndim), fixed.grid)
        shown[case] = RegistrationShown(fixed, None if truth is None else truth.data.numpy(), before, found, names)
    return shown


def _placed(moving: Image, labels: Labelmap | None, transform: Transform, grid: Grid) -> Warped:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        there = None if labels is None else warp(labels, transform, grid).data.numpy()
        return Warped(warp(moving, transform, grid), there, transform.displacement_on(grid))


def _labels(scan: Scan, experiment: Experiment) -> Labelmap:
    """As registrations are judged by them."""
    assert scan.labels is not None
    labels = read_labels(scan.labels)
    values = counted_as(labels.data.numpy(), experiment.evaluate.count_as)
    return Labelmap.from_array(values, labels.grid.affine, dict(labels.names))


def _names(experiment: Experiment, learnt: Mapping[int, str] | None, labels: Sequence[Labelmap]) -> dict[int, str]:
    """Those that the tables show one by one; where they show means, all that are judged."""
    known = {value: name for one in labels for value, name in one.names.items()}
    values = {value for one in labels for value in one.values()} - {0}
    names = dict(learnt or {value: known.get(value, f"label {value}") for value in sorted(values)})
    told = {value: name for value, name in names.items() if name in experiment.evaluate.labels}
    return told or names


def _found(registrar: Registrar, pair: Pair, fixed: Image, moving: Image, folder: Path) -> Transform | None:
    """The map of a pair; None where the method fails, which the table says."""
    states = (file_state(scan.image) for scan in (pair.fixed, pair.moving))
    words = pair.name, registrar.name, registrar.stamp, *states
    kept = folder / f"{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:24]}.nii.gz"
    if kept.exists():
        return read_transform(kept, grid=fixed.grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        try:
            displacement = registrar.run(pair, fixed, moving).transform.displacement_on(fixed.grid)
        except AnamorphError:
            return None
    found = Field(torch.from_numpy(displacement), fixed.grid)
    folder.mkdir(parents=True, exist_ok=True)
    write_transform(found, kept, fixed.grid)
    return found
