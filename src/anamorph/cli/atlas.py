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
    from anamorph.data.prepared import PreparedCohort
    from anamorph.inference.atlas_folder import Atlas

ONLY = {
    "build": ("reference", "settings", "max_memory"),
    "export": ("case", "from_case", "landmarks", "surfaces", "meshes"),
    "show": ("cohort", "refine"),
}
"""Flags that only one action takes."""
OF_COHORT = ("split", "refine", "modality", "device", "threads")
"""Flags that the third takes with a cohort alone."""


class AtlasRequest(BaseModel):
    """What to do with which atlas."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    action: Literal["build", "export", "show"]
    """build: from a cohort. export: its files, or what it knows in the space of a case. show: facts and a page."""
    source: Path
    """build: cohort.csv, its folder, or a prepared cohort. export, show: an atlas, or a trained model that has one."""
    out: Path | None = None
    """Folder for the results; show writes report.html into the atlas's own if absent."""
    cohort: Path | None = None
    """show, of a model: cases to fit its atlas to, which tell how good it is: cohort.csv, its folder, or a prepared
    cohort."""
    refine: bool = False
    """show: refine each of these fits, as the model's settings say; by default they are one pass."""
    split: Literal["train", "validation", "test", "extra", "all"] = "train"
    """build, show: which cases."""
    modality: str | None = None
    """build, show: which scans, where the cohort has several modalities. export: of the images, where the model knows
    several."""
    reference: Path | None = None
    """build: an image whose grid, place and size the atlas takes; by default the middle of the cases."""
    settings: GroupwiseSettings = GroupwiseSettings()
    """build: how."""
    case: tuple[str, ...] = ()
    """export: labels, maps and all that is asked for in the space of these: cases of the atlas, or any images where
    the atlas is a model's. Several get a folder each."""
    from_case: str | None = None
    """export: one more, whose map to each --case and back is written too, and in whose space --landmarks and
    --surfaces are."""
    landmarks: Path | None = None
    """export: points on the atlas (.csv, .fcsv, .mrk.json), or in the space of --from-case, to carry to --case."""
    surfaces: tuple[Path, ...] = ()
    """export: meshes (.vtk) to carry likewise."""
    meshes: bool = False
    """export: surfaces of the atlas's labels as .vtk, too."""
    device: str = "auto"
    """build, and with a model export and show: auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
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
        given = [name for name in OF_COHORT if getattr(self, name) != fields[name].default]
        if self.action == "show" and self.cohort is None and given:
            raise ValueError(f"{', '.join(given)} would do nothing in show without --cohort")
        if self.action == "export" and self.split != fields["split"].default:
            raise ValueError("split would do nothing in export")
        if self.action != "show" and self.out is None:
            raise ValueError(f"{self.action} needs --out")
        if self.action == "show" and self.force:
            raise ValueError("force would do nothing in show, which always writes its page anew")
        if not self.case and (self.from_case or self.landmarks or self.surfaces):
            raise ValueError("from_case, landmarks and surfaces go with --case, where they are carried to")
        return self


FORM = Form(
    AtlasRequest,
    positional=("action", "source"),
    groups={
        "cases": ("cohort", "split", "modality", "refine", "reference"),
        "export": ("case", "from_case", "landmarks", "surfaces", "meshes"),
        "settings": (),
        "machine": ("device", "threads", "max_memory"),
    },
    metavars={"out": "FOLDER", "source": "SOURCE", "cohort": "COHORT", "modality": "NAME", "case": "CASE [CASE ...]",
              "from_case": "CASE", "max_memory": "SIZE"},
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
    from anamorph.data.prepared import PreparedCohort
    from anamorph.inference.atlas import build_atlas
    from anamorph.inference.atlas_cases import scans_of
    from anamorph.inference.atlas_folder import files_of
    from anamorph.inference.run_folder import Run

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    cohort = _cohort(request.source)
    if isinstance(cohort, PreparedCohort):
        cohort, names = cohort.cohort, cohort.plan.labels
    else:
        names = cohort.label_names
    scans = scans_of(cohort, None if request.split == "all" else request.split, request.modality)
    reference = None if request.reference is None else read(request.reference, modality=request.modality)
    inputs = (request.source, *(() if request.reference is None else (request.reference,)))
    assert request.out is not None
    with Run(request.out, "atlas build", request.model_dump(), inputs, request.force, screen.warning) as record:
        with screen.progress() as progress:
            atlas = build_atlas(
                scans, request.out, request.settings, reference=reference, names=names, device=request.device,
                max_memory=request.max_memory, progress=progress,
            )  # fmt: skip
        for name in files_of(atlas):
            record.path(name)
        _write_page(atlas, record.path("report.html"))
        record.finish()
    _tell(atlas, screen, request.out / "report.html")


def _cohort(path: Path) -> Cohort | PreparedCohort:
    """A cohort by its table, its folder, or the folder of its prepared form."""
    from anamorph.data.cohort_files import read_cohort
    from anamorph.data.prepared import PreparedCohort

    return PreparedCohort.open(path) if (path / "index.json").exists() else read_cohort(path)


def _export(request: AtlasRequest, screen: Screen) -> None:
    import torch

    from anamorph.cli.screen import shown
    from anamorph.errors import ConfigurationError
    from anamorph.inference.atlas_export import Wanted, check_export, export_atlas
    from anamorph.inference.atlas_folder import read_atlas
    from anamorph.inference.run_folder import Run

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    atlas = read_atlas(request.source, request.device)
    if request.device != "auto" and not (atlas.model is not None and request.case):
        raise ConfigurationError("E-CFG-007", "--device does nothing where no network is used", do="leave it out")
    wanted = Wanted(request.landmarks, request.surfaces, request.meshes, request.modality)
    check_export(atlas, request.case, request.from_case, wanted)
    inputs = [request.source, *request.surfaces, *([request.landmarks] if request.landmarks else [])]
    if atlas.model is not None:
        others = () if request.from_case is None else (request.from_case,)
        inputs += [Path(case) for case in (*request.case, *others) if Path(case).exists()]
    assert request.out is not None
    with Run(request.out, "atlas export", request.model_dump(), inputs, request.force, screen.warning) as record:
        with screen.progress() as progress:
            export_atlas(atlas, record, request.case, request.from_case, wanted, progress)
        record.finish()
    for name in record.outputs:
        screen.say(f"written: {shown(request.out / name)}")


def _show(request: AtlasRequest, screen: Screen) -> None:
    import torch

    from anamorph.cli.reading import make_folder
    from anamorph.inference.atlas_folder import read_atlas
    from anamorph.inference.atlas_judgement import check_judgement, judge_atlas

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    atlas = read_atlas(request.source, "cpu" if request.cohort is None else request.device)
    if request.cohort is not None:
        check_judgement(atlas, request.refine)
    folder = request.out or atlas.folder or request.source
    make_folder(folder)
    if request.cohort is not None:
        split = None if request.split == "all" else request.split
        with screen.progress() as progress:
            atlas = judge_atlas(
                atlas, _cohort(request.cohort), split, request.modality, refined=request.refine, progress=progress
            )
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
    quality = atlas.quality
    if quality is not None:
        screen.say(f"sharpness: {quality.relative_sharpness:.0%} of the cases' own")
        if quality.mean_deformation_mm is not None and quality.deformation_mm is not None:
            lengths = [format_value(length, "mm") for length in (quality.mean_deformation_mm, quality.deformation_mm)]
            screen.say(f"bias: {lengths[0]} mm, where a case is deformed by {lengths[1]} mm")
        for facts in quality.cases:
            if facts.apart:
                screen.say(
                    f"stands apart: {facts.case} (correlation {facts.similarity:.2f}, "
                    f"deformation {format_value(facts.deformation_mm, 'mm')} mm)"
                )
        for case, why in quality.left_out.items():
            screen.say(f"left out: {case}: {why}")
    for value, found in atlas.topology().items():
        counts = [_counted(found.components, "piece"), _counted(found.tunnels, "hole")]
        if atlas.grid.ndim == 3:
            counts[1:] = [_counted(found.tunnels, "tunnel"), _counted(found.cavities, "cavity", "cavities")]
        screen.say(f"{atlas.names[value]}: {', '.join(counts)}")
    screen.say(f"page: {shown(page)}")


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
