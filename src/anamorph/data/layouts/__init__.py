"""Cohorts out of folders that follow somebody's layout: each module has ``read_layout(folder) -> Cohort``."""

from pathlib import Path

from anamorph.data.cohort import Cohort
from anamorph.data.layouts import (
    bids,
    brats,
    chaos,
    first,
    folders,
    freesurfer,
    ixi,
    learn2reg,
    mask_stacks,
    mmwhs,
    nnunet,
    patients,
    split_folders,
)

LAYOUTS = {
    "nnunet": nnunet.read_layout,
    "bids": bids.read_layout,
    "learn2reg": learn2reg.read_layout,
    "chaos": chaos.read_layout,
    "mmwhs": mmwhs.read_layout,
    "brats": brats.read_layout,
    "ixi": ixi.read_layout,
    "freesurfer": freesurfer.read_layout,
    "first": first.read_layout,
    "patients": patients.read_layout,
    "splits": split_folders.read_layout,
    "stacks": mask_stacks.read_layout,
    "folders": folders.read_layout,
}


def gathered(layout: str, folder: Path, out: Path) -> Cohort:
    """The cohort of a folder in a layout; what has to be written anew for it goes below ``out``."""
    writing = {"stacks": mask_stacks.read_layout, "chaos": chaos.read_layout, "patients": patients.read_layout}
    return writing[layout](folder, out) if layout in writing else LAYOUTS[layout](folder)
