"""A run: a folder that holds a registration's files, and ``run.json``, written last, that says how it ended."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from anamorph.data.files import atomic_write, check_same_space, read, read_labels, sha256, write
from anamorph.data.image import Image, Labelmap, Landmarks, Mask, ReadPolicy
from anamorph.data.landmark_files import paired, read_landmarks
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.errors import (
    AnamorphError,
    AnamorphWarning,
    ConfigurationError,
    InputError,
    IntegrityError,
    NumericalError,
    warn,
)
from anamorph.evaluation import appearance, folding, landmarks, overlap, surface
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.inference.register import Registration, register
from anamorph.inference.request import RegistrationRequest
from anamorph.inference.warp import warp
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Field as DisplacementField
from anamorph.spatial.transform import Transform

STRICT_FOLDED_SHARE = 0.01
"""Share of folded voxels above which a result is questioned (T15)."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run found, for the report and for whoever called it.

    Args:
        registration: the pair and its transform.
        before: the moving image by its header, or the given initial transform, alone.
        warped: the moving image after registration.
        displacement_mm: the whole map on the fixed grid, d I J (K), RAS mm.
        jacobian: its determinant, I J (K).
        fixed_labels: of the fixed image, where given.
        warped_labels: of the moving image on the fixed grid, where given.
        scores: every row; ``method`` is "before" or "anamorph".
    """

    registration: Registration
    before: Image
    warped: Image
    displacement_mm: np.ndarray
    jacobian: np.ndarray
    fixed_labels: Labelmap | None
    warped_labels: Labelmap | None
    scores: Sequence[Score]


@dataclass
class Run:
    """A run folder. As a context it collects warnings, and on an error writes ``run.json`` with its line.

    Raises:
        ConfigurationError: E-OUT-016, the folder holds a complete run already.
    """

    folder: Path
    command: str
    configuration: Mapping[str, Any]
    force: bool = False
    on_warning: Callable[[str], None] | None = None
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def __enter__(self) -> Run:
        if not self.force and _status_of(self.folder) == "complete":
            raise ConfigurationError(
                "E-OUT-016",
                "this folder holds a run already",
                file=self.folder,
                do="choose another --out, or use --force",
            )
        leftover = (
            self.folder.is_dir() and any(self.folder.glob("*.nii.gz")) and not (self.folder / "run.json").exists()
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "E-OUT-001", f"no folder can be made ({error.strerror})", file=self.folder
            ) from error
        (self.folder / "run.json").unlink(missing_ok=True)
        self._begin = time.perf_counter()
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        shown = warnings.showwarning

        def record(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, AnamorphWarning):
                shown(message, category, *rest, **more)
                return
            self.warnings.append(str(message))
            if self.on_warning is not None:
                self.on_warning(str(message))

        warnings.simplefilter("always", AnamorphWarning)
        warnings.showwarning = record
        if leftover:
            warn(
                "W-OUT-001", "this folder holds files of a run that did not finish; they are replaced", file=self.folder
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._caught.__exit__(kind, error, traceback)
        if error is not None:
            code = error.code if isinstance(error, AnamorphError) else type(error).__name__
            self._write("failed", {"code": code, "message": str(error) if isinstance(error, AnamorphError) else code})

    def path(self, name: str) -> Path:
        """Where a result goes; remembered in ``run.json``."""
        if name not in self.outputs:
            self.outputs.append(name)
        return self.folder / name

    def finish(self) -> None:
        """Write ``run.json`` with status complete: the last file of a run."""
        self._write("complete", None)

    def _write(self, status: str, error: Mapping[str, str] | None) -> None:
        record = {
            "status": status,
            "error": error,
            "command": self.command,
            "version": version("anamorph"),
            "configuration": self.configuration,
            **self.facts,
            "seconds_in_all": round(time.perf_counter() - self._begin, 3),
            "peak_memory_mb": peak_memory_mb(),
            "environment": environment(),
            "warnings": self.warnings,
            "outputs": self.outputs,
        }
        text = json.dumps(record, indent=2, allow_nan=False, default=_plain)
        with atomic_write(self.folder / "run.json") as part:
            part.write_text(text + "\n", encoding="utf-8")


def run_registration(request: RegistrationRequest, run: Run, progress: Progress | None = None) -> RunResult:
    """Register, score and write every file but the report and ``run.json``.

    Raises:
        AnamorphError: with the code and the class of what went wrong.
    """
    _refuse_output_among_inputs(request)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    policies = {
        side: ReadPolicy(request.xform, request.strict, request.nonfinite, volume, request.max_memory)
        for side, volume in (("fixed", request.fixed_volume), ("moving", request.moving_volume))
    }
    plain = ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)
    run.facts["inputs"] = hashes = _hashes(request)
    fixed = read(request.fixed, policies["fixed"], request.fixed_modality)
    moving = read(request.moving, policies["moving"], request.moving_modality)
    run.facts["geometry"] = {"fixed": _geometry(fixed.grid), "moving": _geometry(moving.grid)}
    truth = _read_truth(request, fixed, moving, plain)
    initial = None if request.initial is None else read_transform(request.initial, plain)
    registration = register(
        fixed, moving, settings=request.settings, fixed_mask=request.fixed_mask, moving_mask=request.moving_mask,
        initial=initial, policy=plain, device=request.device, max_memory=request.max_memory,
        allow_flat=request.allow_flat, progress=progress,
    )  # fmt: skip
    if progress is not None:
        progress("write", 0.0)
    result = _evaluate(request, registration, truth, run)
    _write_files(result, run)
    changed = [name for name, digest in _hashes(request).items() if digest["sha256"] != hashes[name]["sha256"]]
    if changed:
        raise IntegrityError("E-IO-027", f"{', '.join(changed)} changed while it was read", do="run again")
    if progress is not None:
        progress("write", 1.0)
    return result


@dataclass(frozen=True, eq=False)
class _Truth:
    fixed_labels: Labelmap | None
    moving_labels: Labelmap | None
    fixed_landmarks: Landmarks | None
    moving_landmarks: Landmarks | None


def _read_truth(request: RegistrationRequest, fixed: Image, moving: Image, policy: ReadPolicy) -> _Truth:
    labels = []
    for path, image in ((request.fixed_labels, fixed), (request.moving_labels, moving)):
        labels.append(None if path is None else read_labels(path, policy))
        if path is not None:
            check_same_space(image.grid, labels[-1].grid, path)
    points = [
        None if path is None else read_landmarks(path, image.grid)
        for path, image in ((request.fixed_landmarks, fixed), (request.moving_landmarks, moving))
    ]
    if (points[0] is None) != (points[1] is None):
        raise ConfigurationError("E-CFG-020", "landmarks of one image only", expected="those of both")
    if points[0] is not None and points[1] is not None:
        points = paired(points[0], points[1])
    return _Truth(*labels, *points)


def _evaluate(request: RegistrationRequest, registration: Registration, truth: _Truth, run: Run) -> RunResult:
    fixed, moving, transform = registration.fixed, registration.moving, registration.transform
    begin = time.perf_counter()
    displacement = transform.displacement_on(fixed.grid)
    inverse = transform.inverse().displacement_on(moving.grid)
    jacobian = folding.jacobian_determinant(displacement, fixed.grid.affine).astype(np.float32)
    run.facts["seconds"] = {name: round(value, 3) for name, value in registration.seconds.items()}
    before, warped = warp(moving, registration.initial, fixed.grid), registration.warped()
    labels = truth.moving_labels
    warped_labels = None if labels is None else warp(labels, transform, fixed.grid)
    write_later = DisplacementField(torch.from_numpy(inverse), moving.grid)
    rows: list[Score] = []
    for method, image, map_, moved in (
        (
            "before",
            before,
            registration.initial,
            None if labels is None else warp(labels, registration.initial, fixed.grid),
        ),
        ("anamorph", warped, transform, warped_labels),
    ):
        rows += of_case(_scores_of(request, registration, truth, image, map_, moved), fixed.name, method)
    rows += of_case(folding.folding_scores(displacement, fixed.grid.affine), fixed.name, "anamorph")
    residual = folding.inverse_residual_scores(displacement, fixed.grid.affine, inverse, moving.grid.affine)
    rows += of_case(residual, fixed.name, "anamorph")
    run.facts["inverse_residual"] = {row.metric: row.value if np.isfinite(row.value) else None for row in residual}
    found = registration.found
    if found is not None:
        run.facts["start"] = found.start.origin
        run.facts["working_grid"] = _geometry(found.working_grid)
    folded = float((jacobian <= 0).mean())
    if folded > STRICT_FOLDED_SHARE:
        if request.strict_qc:
            raise NumericalError("E-REG-015", f"{folded:.1%} of the voxels fold", expected="at most 1 %")
        warn("W-REG-015", f"{folded:.1%} of the voxels fold")
    write_transform(write_later, run.path("inverse_displacement.nii.gz"), moving.grid, overwrite=True)
    run.facts["seconds"]["evaluate"] = round(time.perf_counter() - begin, 3)
    return RunResult(
        registration, before, warped, displacement, jacobian, truth.fixed_labels, warped_labels, tuple(rows)
    )


def _scores_of(
    request: RegistrationRequest,
    registration: Registration,
    truth: _Truth,
    image: Image,
    transform: Transform,
    labels: Labelmap | None,
) -> list[Score]:
    fixed = registration.fixed
    seen = warp(_everywhere(registration.moving), transform, fixed.grid).data.numpy()
    if fixed.valid is not None:
        seen &= fixed.valid.numpy()
    rows = appearance.appearance_scores(fixed.data[0].numpy(), image.data[0].numpy(), seen)
    if truth.fixed_labels is not None and labels is not None:
        a, b = truth.fixed_labels.data.numpy(), labels.data.numpy()
        present = sorted((set(np.unique(a).tolist()) | set(np.unique(b).tolist())) - {0, *request.ignore_labels})
        names = {value: truth.fixed_labels.names.get(value, str(value)) for value in present}
        rows += overlap.label_overlap(a, b, names)
        rows += surface.label_surface(a, b, fixed.grid.spacing, names)
    if truth.fixed_landmarks is not None and truth.moving_landmarks is not None:
        pair = truth.fixed_landmarks, truth.moving_landmarks
        rows += landmarks.landmark_scores(pair[0].points, pair[1].points, transform, pair[0].names)
    return rows


def _everywhere(image: Image) -> Mask:
    valid = image.valid if image.valid is not None else torch.ones(image.grid.shape, dtype=torch.bool)
    return Mask(valid, image.grid)


def _write_files(result: RunResult, run: Run) -> None:
    registration = result.registration
    write(result.warped, run.path("warped.nii.gz"))
    if result.warped_labels is not None:
        write(result.warped_labels, run.path("warped_labels.nii.gz"))
    whole = DisplacementField(torch.from_numpy(result.displacement_mm), registration.fixed.grid)
    write_transform(registration.transform, run.path("transform.h5"), registration.fixed.grid, overwrite=True)
    write_transform(whole, run.path("displacement.nii.gz"), registration.fixed.grid, overwrite=True)
    write_transform(registration.linear, run.path("affine.tfm"), overwrite=True)
    with atomic_write(run.path("scores.csv")) as part:
        part.write_text(to_csv(result.scores), encoding="utf-8")


def _inputs(request: RegistrationRequest) -> dict[str, Path]:
    names = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_labels", "moving_labels", "fixed_landmarks", "moving_landmarks", "initial")  # fmt: skip
    return {name: path for name in names if (path := getattr(request, name)) is not None}


def _hashes(request: RegistrationRequest) -> dict[str, dict[str, str]]:
    found = {}
    for name, path in _inputs(request).items():
        try:
            found[name] = {"name": path.name, "sha256": sha256(path)}
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise InputError("E-IO-001", reason, file=path, expected="a readable file") from error
    return found


def _refuse_output_among_inputs(request: RegistrationRequest) -> None:
    out = request.out.resolve()
    for path in _inputs(request).values():
        if path.resolve().parent == out or path.resolve() == out:
            raise ConfigurationError(
                "E-OUT-004",
                "the output folder holds an input",
                file=path,
                expected="a folder of its own",
                do="choose another --out",
            )


def _geometry(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "spacing_mm": grid.spacing.round(6).tolist(), "affine_ras": grid.affine.tolist()}


def _status_of(folder: Path) -> str | None:
    """How the run in a folder ended; None where there is none, or none that can be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError, AttributeError):
        return None


def peak_memory_mb() -> int:
    """Largest memory this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def environment() -> dict[str, Any]:
    """What the result may depend on; nothing that names a machine or a user."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": cuda,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong into run.json")
