"""``anamorph gather``: the table of a cohort out of a folder in somebody's layout; the files stay there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from anamorph.cli.arguments import Form
from anamorph.cli.reading import make_folder
from anamorph.errors import ConfigurationError
from anamorph.training.preparation_settings import labels_of

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.data.cohort import Cohort

Share = Annotated[float, Field(gt=0, lt=1)]


class GatherRequest(BaseModel):
    """Which folder, and how its cases are divided."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    layout: Literal[
        "nnunet", "bids", "learn2reg", "chaos", "mmwhs", "brats", "ixi", "freesurfer", "first", "patients",
        "splits", "stacks", "folders",
    ]  # fmt: skip
    """nnunet: a raw dataset with dataset.json. bids: folders sub-*. learn2reg: as AbdomenMRCT, with NAME_dataset.json.
    chaos: CT and MR, converted from DICOM. mmwhs: ct_train_1001_image.nii.gz, or folders ct-image and ct-label. brats:
    CASE_t1, CASE_t2, CASE_seg and the like. ixi: IXI002-Guys-0828-T1.nii.gz. freesurfer: a folder SUBJECT/mri of each.
    first: FSL FIRST's labels beside the images. patients: PATIENT/ct.nii.gz, PATIENT/mr.nii.gz and the like. splits:
    folders train and test of CASE_img and CASE_seg. stacks: train/MR_images and train/MR_labels, whose masks are 4-D.
    folders: images, labels, masks and landmarks."""
    folder: Path
    """The dataset."""
    out: Path
    """Folder for cohort.csv; what it names stays where it is."""
    modality: str | None = None
    """Another name for the only modality, as where the layout tells none."""
    modalities: tuple[str, ...] = ()
    """Only the scans of these."""
    exclude: tuple[str, ...] = ()
    """Patterns of the names of cases that are left out."""
    usual_contrast: str | None = None
    """Only the cases in the middle, ranked by the standard deviation of this modality's values."""
    usual_share: Share = 0.5
    """How many of them that is."""
    merge: Annotated[dict[int, int] | None, BeforeValidator(labels_of)] = None
    """Labels that count as others, as 2=1,4=1; files of them are written anew."""
    test_share: Share | None = None
    """Share of the training subjects drawn for test, in place of the dataset's own test cases."""
    validation_share: Share | None = None
    """Share of the training subjects drawn for validation."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another number, another draw."""
    test_last: Annotated[int, Field(ge=1)] | None = None
    """So many training subjects, the last by name, are test."""
    validation_last: Annotated[int, Field(ge=1)] | None = None
    """So many before those are validation."""
    test_cases: tuple[str, ...] = ()
    """Patterns of the test cases' names, as *-IOP-* for one hospital of IXI."""
    force: bool = False
    """Replace a cohort.csv that is there."""

    @model_validator(mode="after")
    def _check(self) -> GatherRequest:
        if (self.test_share or 0) + (self.validation_share or 0) >= 1:
            raise ValueError("the shares leave nothing to train on")
        if (self.test_share or self.validation_share) and (self.test_last or self.validation_last):
            raise ValueError("either shares, or the last so many")
        if self.test_cases and (self.test_share or self.test_last):
            raise ValueError("the test cases are named, or so many are taken")
        if self.usual_contrast is None and self.usual_share != GatherRequest.model_fields["usual_share"].default:
            raise ValueError("usual_share would change nothing without usual_contrast")
        return self


FORM = Form(
    GatherRequest,
    positional=("layout", "folder"),
    groups={
        "selection": ("modalities", "exclude", "usual_contrast", "usual_share", "merge"),
        "splits": ("test_share", "validation_share", "seed", "test_last", "validation_last", "test_cases"),
    },
    metavars={
        "out": "FOLDER",
        "test_cases": "PATTERN [PATTERN ...]",
        "exclude": "PATTERN [PATTERN ...]",
        "merge": "LABEL=LABEL...",
    },
    example="anamorph gather nnunet Dataset004_Hippocampus --out cohort",
)


def run(request: GatherRequest, screen: Screen) -> int:
    """Read the layout, divide the cases, write the table."""
    from anamorph.data.cohort_files import NAME, refuse_missing, write_cohort
    from anamorph.data.cohort_selection import with_merged_labels
    from anamorph.data.layouts import gathered

    table = request.out / NAME
    if table.exists() and not request.force:
        raise ConfigurationError("E-OUT-016", "exists already", file=table, do="choose another --out, or use --force")
    cohort = gathered(request.layout, request.folder, request.out)
    refuse_missing(cohort, request.folder.name, "fetch what these links lead to, as by datalad get")
    if request.modality is not None:
        cohort = cohort.renamed(request.modality)
    cohort = _select(cohort, request, screen)
    cohort = _divide(cohort, request, screen)
    make_folder(request.out)
    if request.merge:
        cohort = with_merged_labels(cohort, request.merge, request.out / "merged")
    write_cohort(cohort, request.out)
    _tell(cohort, table, screen)
    return 0


def _select(cohort: Cohort, request: GatherRequest, screen: Screen) -> Cohort:
    """The cases that are wanted."""
    from anamorph.data.cohort_selection import of_modalities, of_usual_contrast, without

    if request.modalities:
        cohort = of_modalities(cohort, request.modalities)
    before = len(cohort.cases)
    cohort = without(cohort, request.exclude)
    if request.usual_contrast is not None:
        cohort = of_usual_contrast(cohort, request.usual_contrast, request.usual_share)
    if left_out := before - len(cohort.cases):
        screen.say(f"left out: {left_out} of {before} cases")
    return cohort


def _divide(cohort: Cohort, request: GatherRequest, screen: Screen) -> Cohort:
    """The splits that are asked for."""
    own = len(cohort.of_split("test").cases)
    if request.test_cases:
        cohort = cohort.with_test(request.test_cases)
    elif own and (request.test_share or request.test_last):
        cohort = replace(cohort, scans=tuple(scan for scan in cohort.scans if scan.split != "test"))
        screen.say(f"left out: {own} test cases of the dataset, since others are asked for")
    if request.test_last or request.validation_last:
        return cohort.held_back(validation=request.validation_last or 0, test=request.test_last or 0)
    if request.test_share or request.validation_share:
        shares = {"validation": request.validation_share or 0.0, "test": request.test_share or 0.0}
        return cohort.divided(**shares, seed=request.seed)
    return cohort


def _tell(cohort: Cohort, table: Path, screen: Screen) -> None:
    from anamorph.cli.screen import shown

    cases = {split: len(cohort.of_split(split).cases) for split in cohort.splits}
    screen.say(f"{len(cohort.cases)} cases: {', '.join(f'{count} {split}' for split, count in cases.items())}")
    for modality, count in sorted(Counter(scan.modality for scan in cohort.scans).items()):
        labelled = sum(scan.modality == modality and scan.labels is not None for scan in cohort.scans)
        screen.say(f"  {modality}: {count} scans, {labelled} with labels")
    screen.say(f"written: {shown(table)}; anamorph check tells what is in the files")
