"""Whether adversaries are well: what a history of validations says of discriminators and translators.

A fault is told once, when it has stood for ``translation.PATIENCE`` validations in a row. Of each side, in the words of
``Translation.health``, and by the thresholds of ``translation.FAULTS``:

==========  =====================================================  =====================================================
W-TRN-020   contrast below ``COLLAPSED``                           its translator makes images without contrast
W-TRN-021   change below ``COPIED`` times difference               its translator gives back what it is given
W-TRN-022   answer_real - answer_fake above ``PREVAILED``          its discriminator is sure of every image
W-TRN-023   alternation above ``CHEQUERED``                        its translator makes chequered images
==========  =====================================================  =====================================================

A discriminator of two equal players answers alike to both; that is no fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anamorph.errors import warn
from anamorph.methods.both_ways import SIDES, Side
from anamorph.methods.translation import faults_of

HEALTH = "health"
"""Before the names of columns, as ``health.fixed_contrast``."""

TOLD: Mapping[str, tuple[str, str]] = {
    "collapsed": (
        "W-TRN-020",
        "images translated to {target} have hardly any contrast: the translator has collapsed; lower its rate",
    ),
    "copied": (
        "W-TRN-021",
        "images translated to {target} are what they were made of: the translator copies; raise the weight of the "
        "adversarial term, or lower that of identity",
    ),
    "imbalanced": (
        "W-TRN-022",
        "the discriminator of {target} is sure of every image, so that little is learnt from it; lower the rate of "
        "discriminators",
    ),
    "chequered": (
        "W-TRN-023",
        "images translated to {target} are chequered, which fields can hide by moving images by half a voxel; set "
        "upsampling to resize, or discriminated to unwarped",
    ),
}
"""Fault -> code, and what is told."""


def warn_of_health(rows: Sequence[Mapping[str, str]], modalities: Mapping[Side, str]) -> None:
    """Tell what the newest row of a history makes certain.

    Args:
        rows: of ``history.csv``; those without a validation do not count.
        modalities: of the sides.

    Warns:
        W-TRN-020, W-TRN-021, W-TRN-022, W-TRN-023: see the module.
    """
    told = [_numbers(row) for row in rows]
    if not told or not told[-1]:
        return
    validations = [numbers for numbers in told if numbers]
    for side in SIDES:
        before = faults_of(validations[:-1], side)
        for fault in faults_of(validations, side):
            if fault not in before:
                code, words = TOLD[fault]
                warn(code, words.format(target=modalities[side]))


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """As ``Translation.health`` told them; empty where nothing was validated."""
    start = f"{HEALTH}."
    return {name.removeprefix(start): float(text) for name, text in row.items() if name.startswith(start) and text}
