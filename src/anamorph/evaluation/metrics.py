"""The one list of metrics: what a reader calls each, and which way is better.

docs/reference/metrics.md explains them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

FAILED = "failed"
"""The metric of the one row of a case for which a method has no result."""


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    Args:
        title: as a reader calls it.
        higher_is_better: None where neither way is, or where nobody knows.
        unit: empty for a pure number.
    """

    title: str
    higher_is_better: bool | None = None
    unit: str = ""

    @property
    def arrow(self) -> str:
        """Which way is better: up, down, or empty."""
        return {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}", None: ""}[self.higher_is_better]


METRICS = {
    "dice": Metric("Dice", True),
    "jaccard": Metric("Jaccard", True),
    "volume_similarity": Metric("Volume similarity", True),
    "recall": Metric("Recall", True),
    "precision": Metric("Precision", True),
    "rvd": Metric("RVD", False),
    "voe": Metric("VOE", False),
    "hd_mm": Metric("HD", False, "mm"),
    "hd95_mm": Metric("HD95", False, "mm"),
    "asd_mm": Metric("ASD", False, "mm"),
    "assd_mm": Metric("ASSD", False, "mm"),
    "assd_balanced_mm": Metric("Balanced ASSD", False, "mm"),
    "region_hd_mm": Metric("HD of regions", False, "mm"),
    "region_average_hd_mm": Metric("Average HD of regions", False, "mm"),
    "tre_mm": Metric("TRE", False, "mm"),
    "map_error_mm": Metric("Map error", False, "mm"),
    "mutual_information": Metric("MI", True, "nats"),
    "normalised_mutual_information": Metric("NMI", True),
    "normalised_cross_correlation": Metric("NCC", True),
    "structural_similarity": Metric("SSIM", True),
    "rmse": Metric("RMSE", False, "intensity"),
    "psnr_db": Metric("PSNR", True, "dB"),
    "folded_voxels": Metric("Folded", False, "voxels"),
    "folded_fraction": Metric("Folded", False),
    "folded_per_mille": Metric("Folded", False, "‰"),
    "sd_log_jacobian": Metric("SDlogJ", False),
    "jacobian_min": Metric("Smallest Jacobian"),
    "jacobian_max": Metric("Largest Jacobian"),
    "components": Metric("Pieces"),
    "holes": Metric("Holes"),
    "tunnels": Metric("Tunnels"),
    "cavities": Metric("Cavities"),
    "stray_voxels": Metric("Outside the largest piece", False, "voxels"),
    "betti_error": Metric("Betti error", False),
    "topological_success": Metric("Topological success", True),
    "atlas_betti_error": Metric("Betti error to the atlas", False),
    "inverse_residual_mm": Metric("Inverse residual", False, "mm"),
    "inverse_consistency_mm": Metric("Inverse consistency error", False, "mm"),
    "mice_voxels": Metric("MICE", False, "voxels"),
    "mice_mm": Metric("MICE", False, "mm"),
    "ic_dice": Metric("IC-DSC", True),
    "atlases_used": Metric("Atlases"),
    "seconds_cpu": Metric("Time, CPU", False, "s"),
    "seconds_gpu": Metric("Time, GPU", False, "s"),
    "peak_memory_mib": Metric("Peak memory", False, "MiB"),
    "peak_gpu_memory_mib": Metric("Peak GPU memory", False, "MiB"),
}
"""Metric -> what is known of it. Means and percentiles over labels, landmarks or voxels go by their stem."""

COSTS = ("seconds_cpu", "seconds_gpu", "peak_memory_mib", "peak_gpu_memory_mib")
"""What depends on the machine: a run on one device has none of those of the other."""

OF_IMAGE = (
    *("mutual_information", "normalised_mutual_information", "normalised_cross_correlation"),
    *("structural_similarity", "rmse", "psnr_db", *COSTS),
)
"""What is of a whole image, or told part by part: parts may be on different scales, and have no mean."""

LEADING = (
    "dice_mean", "hd95_mean_mm", "assd_mean_mm", "nsd_*mm_mean", "tre_mean_mm", "map_error_mean_mm",
    "structural_similarity", "rmse", "psnr_db", "folded_per_mille", "sd_log_jacobian", "inverse_consistency_mean_mm",
    "seconds_cpu", "seconds_gpu",
)  # fmt: skip
"""What a table shows where nobody has chosen, in this order; ``*`` is the tolerance."""

SURFACE_DICE = re.compile(r"nsd_([\d.]+)mm")
SUMMARIES = {"mean": "", "median": "median", "p95": "95th percentile", "max": "largest"}


def metric_of(name: str) -> Metric:
    """What is known of a metric by its name: ``hd95_mean_mm`` is a HD95, ``tre_p95_mm`` a TRE, 95th percentile.

    A name that nobody knows becomes words, and neither way is better.
    """
    if name in METRICS:
        return METRICS[name]
    stem, summary = _stem(name)
    surface_dice = SURFACE_DICE.fullmatch(stem)
    if surface_dice:
        found = Metric(f"NSD at {surface_dice[1]} mm", True)
    elif stem in METRICS:
        found = METRICS[stem]
    else:
        return Metric(name.replace("_", " ").strip().capitalize())
    words = SUMMARIES.get(summary, "")
    return replace(found, title=f"{found.title}, {words}") if words else found


def _stem(name: str) -> tuple[str, str]:
    """A name without the summary that stands in it, and that summary: ("tre_mm", "p95") of ``tre_p95_mm``."""
    for summary in SUMMARIES:
        for tail in (f"_{summary}", f"_{summary}_mm"):
            if name.endswith(tail):
                return name.removesuffix(tail) + tail.removeprefix(f"_{summary}"), summary
    return name, ""
