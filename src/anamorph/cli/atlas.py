"""``anamorph atlas``: build an atlas of a cohort without a network, carry what it knows to its cases, show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from anamorph.cli.arguments import Form
from anamorph.inference.request import Bytes
from anamorph.pairwise.groupwise_settings import GroupwiseSettings

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.data.cohort import Cohort
    from anamorph.inference.atlas_folder import Atlas
    from anamorph.inference.run_folder import Run
    from anamorph.spatial.grid import Grid
    from anamorph.spatial.transform import Transform

ONLY = {
    "build": ("split", "modality", "reference", "settings", "device", "threads", "max_memory"),
    "export": ("case", "from_case", "landmarks", "meshes"),
}
"""Flags that only one action takes."""


class AtlasRequest(BaseModel):
    """What to do with which atlas."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    action: Literal["build", "export", "show"]
    """build: from a cohort. export: its files, or what it knows in the space of a case. show: facts and a page."""
    source: Path
    """build: cohort.csv, its folder, or a prepared cohort. export, show: an atlas, or a trained model that has one."""
    out: Path | None = None
    """Folder for the results; show writes report.html into the atlas's own if absent."""
    split: Literal["train", "all"] = "train"
    """build: which cases."""
    modality: str | None = None
    """build: which scans, where the cohort has several modalities."""
    reference: Path | None = None
    """build: an image whose grid, place and size the atlas takes; by default the middle of the cases."""
    settings: GroupwiseSettings = GroupwiseSettings()
    """build: how."""
    case: str | None = None
    """export: labels, maps and all that is asked for in the space of this case of the atlas."""
    from_case: str | None = None
    """export: a second case, whose map to the first and back is written too, and in whose space --landmarks are."""
    landmarks: Path | None = None
    """export: points on the atlas (.csv, .fcsv, .mrk.json), or in the space of --from-case, to carry to --case."""
    meshes: bool = False
    """export: surfaces of the labels as .vtk, too."""
    device: str = "auto"
    """build: auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """build: CPU threads; all if absent."""
    max_memory: Bytes | None = None
    """build: memory that a registration stays within, bytes or as 4G."""
    force: bool = False
    """build, export: replace earlier results; rounds of a build that still hold are taken over."""

    @model_validator(mode="after")
    def _check(self) -> AtlasRequest:
        fields = type(self).model_fields
        for action, names in ONLY.items():
            given = [name for name in names if getattr(self, name) != fields[name].default]
            if given and action != self.action:
                raise ValueError(f"{', '.join(given)} would do nothing in {self.action}")
        if self.action != "show" and self.out is None:
            raise ValueError(f"{self.action} needs --out")
        if self.action == "show" and self.force:
            raise ValueError("force would do nothing in show, which always writes its page anew")
        if self.case is None and (self.from_case or self.landmarks):
            raise ValueError("from_case and landmarks go with --case, where they are carried to")
        return self


FORM = Form(
    AtlasRequest,
    positional=("action", "source"),
    groups={
        "cases": ("split", "modality", "reference"),
        "export": ("case", "from_case", "landmarks", "meshes"),
        "settings": (),
        "machine": ("device", "threads", "max_memory"),
    },
    metavars={"out": "FOLDER", "source": "SOURCE", "modality": "NAME", "case": "CASE", "from_case": "CASE",
              "max_memory": "SIZE"},
    example="anamorph atlas build brains --iterations 4 --out brain_atlas",
    configurable=True,
)  # fmt: skip


def run(request: AtlasRequest, screen: Screen) -> int:
    """Build, export or show."""
    {"build": _build, "export": _export, "show": _show}[request.action](request, screen)
    return 0


def _build(request: AtlasRequest, screen: Screen) -> None:
    import torch

    from anamorph.data.files import read
    from anamorph.inference.atlas import build_atlas
    from anamorph.inference.atlas_cases import scans_of
    from anamorph.inference.run_folder import Run

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    cohort, names = _cohort_and_names(request.source)
    scans = scans_of(cohort, None if request.split == "all" else request.split, request.modality)
    reference = None if request.reference is None else read(request.reference, modality=request.modality)
    inputs = () if request.reference is None else (request.reference,)
    assert request.out is not None
    with Run(request.out, "atlas build", request.model_dump(), inputs, request.force, screen.warning) as record:
        with screen.progress() as progress:
            atlas = build_atlas(
                scans, request.out, request.settings, reference=reference, names=names, device=request.device,
                max_memory=request.max_memory, progress=progress,
            )  # fmt: skip
        _write_page(atlas, record.path("report.html"))
        record.finish()
    _tell(atlas, screen, request.out / "report.html")


def _cohort_and_names(path: Path) -> tuple[Cohort, dict[int, str]]:
    """A cohort by its table, its folder, or the folder of its prepared form, and what its labels are called."""
    from anamorph.data.cohort_files import read_cohort
    from anamorph.data.prepared import PreparedCohort

    if not (path / "index.json").exists():
        cohort = read_cohort(path)
        return cohort, dict(cohort.label_names)
    prepared = PreparedCohort.open(path)
    return prepared.cohort, dict(prepared.plan.labels)


def _export(request: AtlasRequest, screen: Screen) -> None:
    from anamorph.cli.screen import shown
    from anamorph.data.mesh_files import write_mesh
    from anamorph.inference.atlas_folder import read_atlas, write_atlas
    from anamorph.inference.correspondence import carry, meshes_of
    from anamorph.inference.run_folder import Run

    atlas = read_atlas(request.source)
    to_case = None if request.case is None else atlas.to_case(request.case)
    inputs = [request.source, *([request.landmarks] if request.landmarks else [])]
    assert request.out is not None
    with Run(request.out, "atlas export", request.model_dump(), inputs, request.force, screen.warning) as record:
        if to_case is None:
            for name in write_atlas(atlas, request.out):
                record.path(name)
        else:
            _export_case(request, atlas, *to_case, record)
        labels = atlas.labels()
        if request.meshes and labels is not None:
            for value, mesh in meshes_of(labels):
                moved = mesh if to_case is None else carry(mesh, to_case[0])
                write_mesh(moved, record.path(f"mesh_{value}.vtk"))
        record.finish()
    for name in record.outputs:
        screen.say(f"written: {shown(request.out / name)}")


def _export_case(request: AtlasRequest, atlas: Atlas, to_case: Transform, grid: Grid, record: Run) -> None:
    """Image, labels, maps, points and scores in a case's space."""
    from anamorph.data.files import atomic_write, write
    from anamorph.data.landmark_files import read_landmarks, write_landmarks
    from anamorph.evaluation.scores import of_case, to_csv
    from anamorph.evaluation.topology import topology_scores
    from anamorph.inference.correspondence import carry, consistency_scores, image_in, labels_in, through_atlas

    assert request.case is not None
    write(image_in(atlas.image, to_case, grid), record.path("atlas_image.nii.gz"))
    labels = atlas.labels()
    if labels is not None:
        own = labels_in(labels, to_case, grid)
        write(own, record.path("atlas_labels.nii.gz"))
        names = dict(atlas.names)
        rows = consistency_scores(labels, to_case, atlas.grid, grid, names)
        rows += topology_scores(own.data.numpy(), names)
        with atomic_write(record.path("scores.csv")) as part:
            part.write_text(to_csv(of_case(rows, request.case, "atlas")), encoding="utf-8")
    _write_both_ways(to_case, "atlas", atlas.grid, "case", grid, record)
    source, from_grid = to_case, atlas.grid
    if request.from_case is not None:
        to_other, from_grid = atlas.to_case(request.from_case)
        source = through_atlas(to_other, to_case)
        _write_both_ways(source, "from_case", from_grid, "case", grid, record)
    if request.landmarks is not None:
        points = read_landmarks(request.landmarks, from_grid)
        write_landmarks(carry(points, source), record.path("landmarks.csv"))


def _write_both_ways(transform: Transform, here: str, on: Grid, there: str, onto: Grid, record: Run) -> None:
    """A map and its inverse as ITK composites and displacement fields; each is named by where its points go."""
    from anamorph.data.transform_files import write_transform

    for name, way, grid in ((f"{here}_to_{there}", transform, on), (f"{there}_to_{here}", transform.inverse(), onto)):
        write_transform(way, record.path(f"{name}.h5"), grid, overwrite=True)
        write_transform(way, record.path(f"{name}.nii.gz"), grid, overwrite=True)


def _show(request: AtlasRequest, screen: Screen) -> None:
    from anamorph.cli.reading import make_folder
    from anamorph.inference.atlas_folder import read_atlas

    atlas = read_atlas(request.source)
    folder = request.out or atlas.folder or request.source
    make_folder(folder)
    _write_page(atlas, folder / "report.html")
    _tell(atlas, screen, folder / "report.html")


def _write_page(atlas: Atlas, path: Path) -> None:
    from anamorph.data.files import atomic_write
    from anamorph.inference.atlas_folder import evolution_of
    from anamorph.report.atlas import render_atlas

    with atomic_write(path) as part:
        part.write_text(render_atlas(atlas, evolution_of(atlas)), encoding="utf-8")


def _tell(atlas: Atlas, screen: Screen, page: Path) -> None:
    """The facts, and what asks for attention."""
    from anamorph.cli.screen import shown
    from anamorph.inference.atlas_folder import facts_of
    from anamorph.report.tables import format_value

    for name, value in facts_of(atlas).items():
        screen.say(f"{name}: {value}")
    if atlas.card is not None and atlas.card.rounds:
        last = atlas.card.rounds[-1]
        screen.say(f"sharpness: {last.relative_sharpness:.0%} of the cases' own")
        if last.kind == "deformable":
            lengths = [format_value(length, "mm") for length in (last.mean_deformation_mm, last.deformation_mm)]
            screen.say(f"bias: {lengths[0]} mm, where a case is deformed by {lengths[1]} mm")
        for facts in atlas.card.cases:
            if facts.apart:
                screen.say(
                    f"stands apart: {facts.case} (correlation {facts.similarity:.2f}, "
                    f"deformation {format_value(facts.deformation_mm, 'mm')} mm)"
                )
        for case, why in atlas.card.left_out.items():
            screen.say(f"left out: {case}: {why}")
    hollow = "holes" if atlas.grid.ndim == 2 else "tunnels"
    for value, found in atlas.topology().items():
        pieces = f"{found.components} piece{'s' * (found.components != 1)}, {found.tunnels} {hollow}"
        more = "" if atlas.grid.ndim == 2 else f", {found.cavities} cavities"
        screen.say(f"{atlas.names[value]}: {pieces}{more}")
    screen.say(f"page: {shown(page)}")
