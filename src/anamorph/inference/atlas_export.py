"""A whole export as ``anamorph atlas export`` does it: the atlas's own files, or what it knows in the space of cases.

====================================  =================================================================================
without cases                         the files of ``atlas_folder``, ``mesh_VALUE.vtk``
for each case                         in the folder itself, or in ``CASE/`` where there are several:
``atlas_image.nii.gz``                on the case's grid, as ``atlas_labels.nii.gz``
``atlas_to_case``, ``case_to_atlas``  ``.h5`` and ``.nii.gz``: the map of points and its inverse
``from_case_to_case`` and back        likewise, from the other case
``landmarks.csv``, ``NAME.vtk``       given points and meshes, carried
``mesh_VALUE.vtk``                    surfaces of the atlas's labels, carried
``scores.csv``                        of all cases, in the folder itself
====================================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anamorph.data.files import atomic_write, write
from anamorph.data.landmark_files import read_landmarks, write_landmarks
from anamorph.data.mesh_files import Mesh, read_mesh, write_mesh
from anamorph.data.transform_files import write_transform
from anamorph.errors import ConfigurationError
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.evaluation.topology import topology_scores
from anamorph.inference.atlas_folder import Atlas, files_of, write_atlas
from anamorph.inference.correspondence import (
    Subject,
    carry,
    check_case,
    consistency_scores,
    image_in,
    meshes_of,
    stem_of,
    subject_of,
    through_atlas,
)
from anamorph.inference.run_folder import Run
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform


@dataclass(frozen=True)
class Wanted:
    """What is carried to every case.

    Args:
        landmarks: points on the atlas, or in the space of the case that they come from.
        surfaces: meshes, likewise.
        meshes: whether surfaces of the atlas's labels are written.
        modality: of images, where a model knows several.
    """

    landmarks: Path | None = None
    surfaces: tuple[Path, ...] = ()
    meshes: bool = False
    modality: str | None = None


def check_export(atlas: Atlas, cases: Sequence[str], from_case: str | None, wanted: Wanted) -> None:
    """Refuse what cannot come to a good end, before anything is written.

    Raises:
        InputError: E-ATL-005, no such case.
        ConfigurationError: E-ATL-008, meshes of a 2-D atlas; E-ATL-009, meshes of an atlas without labels; E-ATL-010,
            cases of a model that fits its atlas to no image; E-ATL-011, cases or surfaces of one name; E-CFG-007, a
            modality where no image is looked at.
    """
    if atlas.grid.ndim == 2 and (wanted.meshes or wanted.surfaces):
        do = "leave out --meshes and --surfaces"
        raise ConfigurationError("E-ATL-008", "meshes of a 2-D atlas", expected="a 3-D one", do=do)
    if wanted.meshes and not atlas.names:
        found = "meshes of an atlas without labels"
        raise ConfigurationError("E-ATL-009", found, file=atlas.name or None, do="leave out --meshes")
    if wanted.modality is not None and not (atlas.model is not None and cases):
        found = "--modality does nothing where a model looks at no image"
        raise ConfigurationError("E-CFG-007", found, do="leave it out")
    for case in cases if from_case is None else (*cases, from_case):
        check_case(atlas, case)
    names = [case if atlas.model is None else stem_of(Path(case)) for case in cases]
    surfaces = [stem_of(path) for path in wanted.surfaces]
    surfaces += [f"mesh_{value}" for value in atlas.names] if wanted.meshes else []
    for what, known in (("cases", names), ("surfaces", surfaces)):
        twice = sorted({name for name in known if known.count(name) > 1})
        if twice:
            found = f"{what} of one name, whose files would be one: {', '.join(twice)}"
            raise ConfigurationError("E-ATL-011", found, do="rename one, or export them one by one")


def export_atlas(
    atlas: Atlas,
    run: Run,
    cases: Sequence[str] = (),
    from_case: str | None = None,
    wanted: Wanted = Wanted(),
    progress: Progress | None = None,
) -> None:
    """Write every file but ``run.json``.

    Args:
        atlas: from ``read_atlas``.
        run: where to; checked by ``check_export``.
        cases: names of cases, or files of images that a model fits its atlas to; none for the atlas's own files.
        from_case: one more, in whose space the given points and meshes are.
        wanted: what is carried.
        progress: told of the cases.

    Raises:
        AnamorphError: with the code and the class of what went wrong.
    """
    labels = atlas.labels()
    meshes = dict(meshes_of(labels)) if wanted.meshes and labels is not None else {}
    if not cases:
        write_atlas(atlas, run.folder)
        for name in files_of(atlas):
            run.path(name)
        _write_meshes({f"mesh_{value}": mesh for value, mesh in meshes.items()}, run, "")
        return
    told = progress if len(cases) == 1 and from_case is None else None
    source = None if from_case is None else subject_of(atlas, from_case, modality=wanted.modality)
    points_on = atlas.grid if source is None else source.grid
    points = None if wanted.landmarks is None else read_landmarks(wanted.landmarks, points_on)
    surfaces = {stem_of(path): read_mesh(path) for path in wanted.surfaces}
    rows: list[Score] = []
    for place, case in enumerate(cases):
        if progress is not None:
            progress("export", place / len(cases))
        subject = subject_of(atlas, case, modality=wanted.modality, progress=told)
        below = f"{subject.name}/" if len(cases) > 1 else ""
        (run.folder / below).mkdir(exist_ok=True)
        rows += _write_subject(atlas, subject, run, below)
        way = subject.from_atlas
        if source is not None:
            way = through_atlas(source.from_atlas, subject.from_atlas)
            _write_both_ways(way, ("from_case", source.grid), ("case", subject.grid), run, below)
        if points is not None:
            write_landmarks(carry(points, way), run.path(f"{below}landmarks.csv"))
        own = {f"mesh_{value}": carry(mesh, subject.from_atlas) for value, mesh in meshes.items()}
        _write_meshes(own | {name: carry(mesh, way) for name, mesh in surfaces.items()}, run, below)
    if rows:
        with atomic_write(run.path("scores.csv")) as part:
            part.write_text(to_csv(rows), encoding="utf-8")
    if progress is not None:
        progress("export", 1.0)


def _write_subject(atlas: Atlas, subject: Subject, run: Run, below: str) -> list[Score]:
    """Image, labels and maps in a case's space; returns how well the maps undo each other and what became of labels."""
    to_case, grid = subject.from_atlas, subject.grid
    write(image_in(atlas.image, to_case, grid), run.path(f"{below}atlas_image.nii.gz"))
    _write_both_ways(to_case, ("atlas", atlas.grid), ("case", grid), run, below)
    labels, names = atlas.labels(), dict(atlas.names)
    if labels is None or subject.labels is None:
        return []
    write(subject.labels, run.path(f"{below}atlas_labels.nii.gz"))
    rows = consistency_scores(labels, to_case, atlas.grid, grid, names)
    rows += topology_scores(subject.labels.data.numpy(), names, atlas=atlas.topology())
    return of_case(rows, subject.name, "atlas")


def _write_both_ways(
    transform: Transform, here: tuple[str, Grid], there: tuple[str, Grid], run: Run, below: str
) -> None:
    """A map and its inverse as ITK composites and displacement fields; each is named by where its points go."""
    for way, start, end in ((transform, here, there), (transform.inverse(), there, here)):
        name = f"{below}{start[0]}_to_{end[0]}"
        write_transform(way, run.path(f"{name}.h5"), start[1], overwrite=True)
        write_transform(way, run.path(f"{name}.nii.gz"), start[1], overwrite=True)


def _write_meshes(meshes: dict[str, Mesh], run: Run, below: str) -> None:
    for name, mesh in meshes.items():
        write_mesh(mesh, run.path(f"{below}{name}.vtk"))
