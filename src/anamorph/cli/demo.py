"""``anamorph demo``: a CT-MR pair whose truth is known, registered like any other pair and scored against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from anamorph.cli.arguments import Form
from anamorph.cli.reading import make_folder
from anamorph.errors import ConfigurationError
from anamorph.inference.request import Bytes, RegistrationRequest

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.data.phantoms import PhantomPair
    from anamorph.spatial.transform import Transform

INPUTS, RESULT = "inputs", "result"


class DemoRequest(BaseModel):
    """Which phantom, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    out: Path = Path("anamorph-demo")
    """Folder for the phantom and the result; a demo's earlier ones are replaced."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another patient, another deformation."""
    spacing: Annotated[float, Field(ge=1.2, le=6)] = 2.4
    """Voxel size of the CT in mm; the MR's grows with it. The default takes about half a minute."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
    max_memory: Bytes | None = None
    """Memory to stay within, bytes or as 4G."""


FORM = Form(
    DemoRequest,
    groups={"machine": ("device", "threads", "max_memory")},
    metavars={"out": "FOLDER", "max_memory": "SIZE"},
    example="anamorph demo --out build/demo",
)


def run(request: DemoRequest, screen: Screen) -> int:
    """Make the pair, register its files and compare with the truth."""
    from anamorph.cli.register import perform, score_rows, summarise
    from anamorph.cli.screen import shown
    from anamorph.data.phantoms import abdomen

    _refuse_other_files(request.out)
    with screen.progress() as progress:
        progress("phantom", 0.0)
        scale = request.spacing / 2.4
        pair = abdomen(
            request.seed,
            fixed_spacing=(2.4 * scale, 2.4 * scale, 3.0 * scale),
            moving_spacing=(2.8 * scale, 2.8 * scale, 4.0 * scale),
        )
        files = write_pair(pair, request.out / INPUTS)
        progress("phantom", 1.0)
    registration = RegistrationRequest(
        **files,
        out=request.out / RESULT,
        fixed_modality="ct",
        moving_modality="t2",
        device=request.device,
        threads=request.threads,
        max_memory=request.max_memory,
        force=True,
    )
    outcome = perform(registration, screen, "demo")
    found = outcome.result.registration
    rows = _named(score_rows(outcome.result.scores), pair)
    rows += truth_rows(pair, found.initial, "before") + truth_rows(pair, found.transform, "after")
    summarise(outcome, rows, screen)
    screen.say(f"inputs: {shown(request.out / INPUTS)}")
    return 0


def write_pair(pair: PhantomPair, folder: Path) -> dict[str, Any]:
    """Writes a pair as files; returns them by the names that a registration asks for."""
    from anamorph.data.files import write
    from anamorph.data.landmark_files import write_landmarks
    from anamorph.data.transform_files import write_transform

    make_folder(folder)
    files = {
        "fixed": folder / "ct.nii.gz",
        "moving": folder / "mr.nii.gz",
        "fixed_labels": folder / "ct_labels.nii.gz",
        "moving_labels": folder / "mr_labels.nii.gz",
        "fixed_landmarks": folder / "ct_landmarks.csv",
        "moving_landmarks": folder / "mr_landmarks.csv",
    }
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write(getattr(pair, name), files[name])
    for name in ("fixed_landmarks", "moving_landmarks"):
        write_landmarks(getattr(pair, name), files[name])
    write_transform(pair.truth, folder / "truth.h5", overwrite=True)
    return files


def truth_rows(pair: PhantomPair, transform: Transform, stage: str) -> list[dict[str, Any]]:
    """How far a transform is from the truth at the voxels of the organs, mm."""
    import numpy as np

    voxels = np.argwhere(pair.fixed_labels.data.numpy() > 0)
    points = pair.fixed.grid.to_world(voxels.astype(np.float64))
    apart = np.linalg.norm(transform(points) - pair.truth(points), axis=1)
    values = {"map_error_mean_mm": apart.mean(), "map_error_p95_mm": np.percentile(apart, 95)}
    return [{"metric": name, "unit": "mm", "value": float(value), "stage": stage} for name, value in values.items()]


def _named(rows: list[dict[str, Any]], pair: PhantomPair) -> list[dict[str, Any]]:
    """Rows with the organs' names in place of their labels."""
    names = {str(label): name for label, name in pair.label_names.items()}
    return [row | {"label": names.get(row["label"], row["label"])} for row in rows]


def _refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier demo."""
    if out.exists() and (not out.is_dir() or any(entry.name not in (INPUTS, RESULT) for entry in out.iterdir())):
        do = "choose another --out"
        raise ConfigurationError("E-OUT-016", "holds something else than a demo", file=out, do=do)
