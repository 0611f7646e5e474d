"""Cohorts out of folders that follow somebody's layout: each module has ``read_layout(folder) -> Cohort``."""

from anamorph.data.layouts import bids, chaos, first, folders, freesurfer, ixi, learn2reg, nnunet, split_folders

LAYOUTS = {
    "nnunet": nnunet.read_layout,
    "bids": bids.read_layout,
    "learn2reg": learn2reg.read_layout,
    "chaos": chaos.read_layout,
    "ixi": ixi.read_layout,
    "freesurfer": freesurfer.read_layout,
    "first": first.read_layout,
    "splits": split_folders.read_layout,
    "folders": folders.read_layout,
}
