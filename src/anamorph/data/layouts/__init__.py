"""Cohorts out of folders that follow somebody's layout: each module has ``read_layout(folder) -> Cohort``."""

from anamorph.data.layouts import bids, folders, nnunet

LAYOUTS = {"nnunet": nnunet.read_layout, "bids": bids.read_layout, "folders": folders.read_layout}
