"""Cohorts out of folders that follow somebody's layout: each module has ``read_layout(folder) -> Cohort``."""

from anamorph.data.layouts import bids, first, folders, freesurfer, ixi, nnunet, split_folders

LAYOUTS = {
    "nnunet": nnunet.read_layout,
    "bids": bids.read_layout,
    "ixi": ixi.read_layout,
    "freesurfer": freesurfer.read_layout,
    "first": first.read_layout,
    "splits": split_folders.read_layout,
    "folders": folders.read_layout,
}
