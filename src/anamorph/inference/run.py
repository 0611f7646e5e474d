"""A whole registration as ``anamorph register`` does it: files in, transform found, scored, files out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anamorph.data.files import atomic_write, check_same_space, read, read_labels, sha256, write
from anamorph.data.image import Image, Labelmap, Landmarks, ReadPolicy
from anamorph.data.landmark_files import paired, read_landmarks
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError, IntegrityError, NumericalError, warn
from anamorph.evaluation import appearance, folding, landmarks, overlap, surface
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.inference.model_folder import read_model
from anamorph.inference.register import Registration, register
from anamorph.inference.register_model import register_with
from anamorph.inference.request import RegistrationRequest
from anamorph.inference.run_folder import Run
from anamorph.inference.stages import Stages
from anamorph.inference.warp import comparable, warp
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Transform
from anamorph.spatial.transform import Field as DisplacementField

STRICT_FOLDED_SHARE = 0.01
"""Share of folded voxels above which a result is questioned (T15)."""

UNEVEN_VOLUMES = 0.35
"""SD of the log Jacobian above which a deformation is questioned: a third of the volume either way, on average."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run found, for the report and for whoever called it.

    Args:
        registration: the pair and its transform.
        before: the moving image by its header, or the given initial transform, alone.
        warped: the moving image after registration.
        displacement_mm: the whole map on the fixed grid, d I J (K), RAS mm.
        inverse_mm: its inverse on the moving grid.
        jacobian: the determinant of the map, I J (K).
        fixed_labels: of the fixed image, where given.
        warped_labels: of the moving image on the fixed grid, where given.
        scores: every row; ``method`` is "before" or the registration's.
        backward_mm: on the moving grid, what a method that registers both ways found beside the map; None of others.
    """

    registration: Registration
    before: Image
    warped: Image
    displacement_mm: np.ndarray
    inverse_mm: np.ndarray
    jacobian: np.ndarray
    fixed_labels: Labelmap | None
    warped_labels: Labelmap | None
    scores: Sequence[Score]
    backward_mm: np.ndarray | None = None


def run_registration(request: RegistrationRequest, run: Run, progress: Progress | None = None) -> RunResult:
    """Register, score and write every file but the report and ``run.json``.

    Raises:
        AnamorphError: with the code and the class of what went wrong.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    policies = {
        side: ReadPolicy(request.xform, request.strict, request.nonfinite, volume, request.max_memory)
        for side, volume in (("fixed", request.fixed_volume), ("moving", request.moving_volume))
    }
    plain = ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)
    run.facts["inputs"] = hashes = hashes_of(request.inputs())
    fixed = read(request.fixed, policies["fixed"], request.fixed_modality)
    moving = read(request.moving, policies["moving"], request.moving_modality)
    run.facts["geometry"] = {"fixed": geometry_of(fixed.grid), "moving": geometry_of(moving.grid)}
    truth = _read_truth(request, fixed, moving, plain)
    initial = None if request.initial is None else read_transform(request.initial, plain)
    registration = _registered(request, fixed, moving, initial, plain, run, progress)
    names = {"fixed": registration.fixed.modality, "moving": registration.moving.modality}
    run.facts["modalities"] = {side: name for side, name in names.items() if name is not None}
    stages = Stages(progress)
    with stages("evaluate"):
        result = _evaluate(request, registration, truth, run)
    run.facts["seconds"] = rounded_seconds(registration.seconds, stages)
    with stages("write"):
        _write_files(result, run)
        refuse_changes(request.inputs(), hashes)
    return result


def _registered(
    request: RegistrationRequest,
    fixed: Image,
    moving: Image,
    initial: Transform | None,
    policy: ReadPolicy,
    run: Run,
    progress: Progress | None,
) -> Registration:
    """By the model where one is given, else by the pairwise engine."""
    if request.model is None:
        return register(
            fixed, moving, settings=request.settings, fixed_mask=request.fixed_mask, moving_mask=request.moving_mask,
            initial=initial, policy=policy, device=request.device, max_memory=request.max_memory,
            allow_flat=request.allow_flat, progress=progress,
        )  # fmt: skip
    model = read_model(request.model, request.device)
    run.facts["model"] = model.facts
    return register_with(
        model, fixed, moving, fixed_mask=request.fixed_mask, moving_mask=request.moving_mask, initial=initial,
        policy=policy, max_memory=request.max_memory, allow_flat=request.allow_flat, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Truth:
    fixed_labels: Labelmap | None
    moving_labels: Labelmap | None
    fixed_landmarks: Landmarks | None
    moving_landmarks: Landmarks | None
    scored: tuple[int, ...]


def _read_truth(request: RegistrationRequest, fixed: Image, moving: Image, policy: ReadPolicy) -> _Truth:
    labels = [
        None if path is None else labels_of(image, path, policy)
        for path, image in ((request.fixed_labels, fixed), (request.moving_labels, moving))
    ]
    points = [
        None if path is None else read_landmarks(path, image.grid)
        for path, image in ((request.fixed_landmarks, fixed), (request.moving_landmarks, moving))
    ]
    if (points[0] is None) != (points[1] is None):
        raise ConfigurationError("E-CFG-020", "landmarks of one image only", expected="those of both")
    if points[0] is not None and points[1] is not None:
        points = paired(points[0], points[1])
    return _Truth(
        labels[0], labels[1], points[0], points[1], _common_labels(labels[0], labels[1], request.ignore_labels)
    )


def _common_labels(fixed: Labelmap | None, moving: Labelmap | None, ignored: Sequence[int]) -> tuple[int, ...]:
    """Labels that both files know; a structure drawn in one of them says nothing about the alignment."""
    if fixed is None or moving is None:
        return ()
    here, there = ({*labels.values()} - {0, *ignored} for labels in (fixed, moving))
    if alone := sorted(here ^ there):
        listed = ", ".join(map(str, alone[:20])) + (", ..." if len(alone) > 20 else "")
        warn("W-LAB-010", f"{len(here & there)} labels are in both files and scored; in one only: {listed}")
    return tuple(sorted(here & there))


def labels_of(image: Image, path: Path, policy: ReadPolicy) -> Labelmap:
    """Labels on their image's grid; on one of another size they are brought over in world space, with a word.

    Raises:
        InputError: E-GEO-015, they lie elsewhere; else as in ``read_labels``.
    """
    labels = read_labels(path, policy)
    if labels.grid.ndim != image.grid.ndim:
        found = f"{labels.grid.ndim}-D labels of a {image.grid.ndim}-D image"
        raise InputError("E-GEO-015", found, file=path, expected="one dimension")
    if labels.grid.shape == image.grid.shape:
        check_same_space(image.grid, labels.grid, path)
        return labels
    warn("W-GEO-015", "on another grid than its image; brought over in world space", file=path)
    return warp(labels, Affine.identity(image.grid.ndim), image.grid)


def _evaluate(request: RegistrationRequest, registration: Registration, truth: _Truth, run: Run) -> RunResult:
    fixed, moving, transform = registration.fixed, registration.moving, registration.transform
    displacement = transform.displacement_on(fixed.grid)
    inverse = transform.inverse().displacement_on(moving.grid)
    jacobian = folding.jacobian_determinant(displacement, fixed.grid.affine).astype(np.float32)
    before, rows, _ = _scored("before", registration.initial, request, registration, truth)
    warped, after, warped_labels = _scored(registration.method, transform, request, registration, truth)
    residual = folding.inverse_residual_scores(displacement, fixed.grid.affine, inverse, moving.grid.affine)
    back = None if registration.backward is None else registration.backward.displacement_on(moving.grid)
    consistency = list[Score]()
    if back is not None:
        maps = displacement, fixed.grid.affine, back, moving.grid.affine
        consistency = folding.inverse_residual_scores(*maps, metric="inverse_consistency")
    whole = [*folding.folding_scores(displacement, fixed.grid.affine), *residual, *consistency]
    rows += [*after, *of_case(whole, fixed.name, registration.method)]
    advice = "raise --smoothness" if request.model is None else "train with more smoothness"
    _question_folding(float((jacobian <= 0).mean()), request.strict_qc, advice)
    unevenness = next(row.value for row in whole if row.metric == "sd_log_jacobian")
    if unevenness > UNEVEN_VOLUMES:
        found = f"volumes change unevenly (SD of the log Jacobian {unevenness:.2f})"
        warn("W-REG-017", f"{found}; look at the deformation, or {advice}")
    run.facts["inverse_residual"] = _told(residual)
    if consistency:
        run.facts["inverse_consistency"] = _told(consistency)
    if (found := registration.found) is not None:
        run.facts |= {"start": found.start.origin, "kept": found.kept, "working_grid": geometry_of(found.working_grid)}
    return RunResult(
        registration, before, warped, displacement, inverse, jacobian, truth.fixed_labels, warped_labels,
        tuple(rows), back,
    )  # fmt: skip


def _told(rows: Sequence[Score]) -> dict[str, float | None]:
    return {row.metric: row.value if np.isfinite(row.value) else None for row in rows}


def rounded_seconds(found: Mapping[str, float], stages: Stages) -> dict[str, float]:
    """Of what found the result, and of the stages that followed, for ``run.json``."""
    return {name: round(value, 3) for name, value in {**found, **stages.seconds}.items()}


def _question_folding(share: float, strict: bool, advice: str) -> None:
    if share <= STRICT_FOLDED_SHARE:
        return
    found = f"{share:.1%} of the voxels fold"
    if strict:
        raise NumericalError("E-REG-015", found, expected="at most 1 %", do=advice)
    warn("W-REG-015", found)


def _scored(
    method: str, transform: Transform, request: RegistrationRequest, registration: Registration, truth: _Truth
) -> tuple[Image, list[Score], Labelmap | None]:
    """The moving image and labels brought over by a transform, and how well that fits."""
    fixed, moving, labels = registration.fixed, registration.moving, truth.moving_labels
    with warnings.catch_warnings():
        if method == "before":  # what lies outside or gets lost there is the very reason to register
            warnings.simplefilter("ignore", AnamorphWarning)
        image = warp(moving, transform, fixed.grid)
        warped = None if labels is None else warp(labels, transform, fixed.grid)
        seen = comparable(fixed, moving, transform)
    alike = fixed.modality is not None and fixed.modality == moving.modality
    rows = appearance.appearance_scores(fixed.data[0].numpy(), image.data[0].numpy(), seen, same_scale=alike)
    if not seen.any():
        rows = [replace(row, reason="the images do not overlap") for row in rows]
    if truth.fixed_labels is not None and warped is not None:
        a, b = truth.fixed_labels.data.numpy(), warped.data.numpy()
        names = {value: truth.fixed_labels.names.get(value, str(value)) for value in truth.scored}
        rows += overlap.label_overlap(a, b, names)
        rows += surface.label_surface(a, b, fixed.grid.spacing, names)
    if truth.fixed_landmarks is not None and truth.moving_landmarks is not None:
        pair = truth.fixed_landmarks, truth.moving_landmarks
        rows += landmarks.landmark_scores(pair[0].points, pair[1].points, transform, pair[0].names)
    return image, of_case(rows, fixed.name, method), warped


def _write_files(result: RunResult, run: Run) -> None:
    registration = result.registration
    write(result.warped, run.path("warped.nii.gz"))
    if result.warped_labels is not None:
        write(result.warped_labels, run.path("warped_labels.nii.gz"))
    whole = DisplacementField(torch.from_numpy(result.displacement_mm), registration.fixed.grid)
    write_transform(registration.transform, run.path("transform.h5"), registration.fixed.grid, overwrite=True)
    write_transform(whole, run.path("displacement.nii.gz"), registration.fixed.grid, overwrite=True)
    for name, field in (("inverse", result.inverse_mm), ("backward", result.backward_mm)):
        if field is not None:
            back = DisplacementField(torch.from_numpy(field), registration.moving.grid)
            write_transform(back, run.path(f"{name}_displacement.nii.gz"), registration.moving.grid, overwrite=True)
    write_transform(registration.linear, run.path("affine.tfm"), overwrite=True)
    with atomic_write(run.path("scores.csv")) as part:
        part.write_text(to_csv(result.scores), encoding="utf-8")


def hashes_of(inputs: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Name and hash of every input, for ``run.json``.

    Raises:
        InputError: E-IO-001.
    """
    found = {}
    for name, path in inputs.items():
        try:
            found[name] = {"name": path.name, "sha256": sha256(path)}
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise InputError("E-IO-001", reason, file=path, expected="a readable file") from error
    return found


def refuse_changes(inputs: Mapping[str, Path], before: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse a result whose inputs are not what they were.

    Raises:
        IntegrityError: E-IO-027.
    """
    changed = [name for name, digest in hashes_of(inputs).items() if digest["sha256"] != before[name]["sha256"]]
    if changed:
        raise IntegrityError("E-IO-027", f"{', '.join(changed)} changed while it was read", do="run again")


def geometry_of(grid: Grid) -> dict[str, Any]:
    """A grid as ``run.json`` has it."""
    return {"shape": list(grid.shape), "spacing_mm": grid.spacing.round(6).tolist(), "affine_ras": grid.affine.tolist()}
