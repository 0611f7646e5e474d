"""Whether adversaries are well: what a history of validations says of discriminators and translators.

A fault is told once it has stood for ``PATIENCE`` validations in a row, since translators that are about to learn, and
discriminators that are ahead for a while, are no fault. Of each side, in the words of ``Translation.health``:

==========  =====================================================  =====================================================
W-TRN-020   contrast below ``COLLAPSED``                           its translator makes images without contrast
W-TRN-021   change below ``COPIED`` times difference               its translator gives back what it is given
W-TRN-022   answer_real - answer_fake above ``PREVAILED``          its discriminator is sure of every image
W-TRN-023   alternation above ``CHEQUERED``                        its translator makes chequered images
==========  =====================================================  =====================================================

A discriminator of two equal players answers alike to both; that is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from anamorph.errors import warn
from anamorph.methods.both_ways import SIDES, Side

HEALTH = "health"
"""Before the names of columns, as ``health.fixed_contrast``."""
PATIENCE = 3
COLLAPSED, COPIED, PREVAILED, CHEQUERED = 0.1, 0.1, 0.9, 2.0

FAULTS: dict[str, tuple[Callable[[Mapping[str, float]], bool], str]] = {
    "W-TRN-020": (
        lambda of: of["contrast"] < COLLAPSED,
        "images translated to {target} have hardly any contrast: the translator has collapsed; lower its rate",
    ),
    "W-TRN-021": (
        lambda of: of["change"] < COPIED * of["difference"],
        "images translated to {target} are what they were made of: the translator copies; raise the weight of the "
        "adversarial term, or lower that of identity",
    ),
    "W-TRN-022": (
        lambda of: of["answer_real"] - of["answer_fake"] > PREVAILED,
        "the discriminator of {target} is sure of every image, so that little is learnt from it; lower the rate of "
        "discriminators",
    ),
    "W-TRN-023": (
        lambda of: of.get("alternation", 0.0) > CHEQUERED,
        "images translated to {target} are chequered, which fields can hide by moving images by half a voxel; set "
        "upsampling to resize, or discriminated to unwarped",
    ),
}
"""Code -> whether the numbers of a side show it, and what is told."""


def warn_of_health(rows: Sequence[Mapping[str, str]], modalities: Mapping[Side, str]) -> None:
    """Tell what the newest row of a history makes certain.

    Args:
        rows: of ``history.csv``; those without a validation do not count.
        modalities: of the sides.

    Warns:
        W-TRN-020, W-TRN-021, W-TRN-022, W-TRN-023: see the module.
    """
    for side in SIDES:
        start = f"{HEALTH}.{side}_"
        seen = [_numbers(row, start) for row in rows if row.get(f"{start}change")]
        if not seen or not rows[-1].get(f"{start}change"):
            continue
        for code, (shows, words) in FAULTS.items():
            last = [shows(numbers) for numbers in seen[-PATIENCE - 1 :]]
            if last[-PATIENCE:] == [True] * PATIENCE and (len(last) == PATIENCE or not last[0]):
                warn(code, words.format(target=modalities[side]))


def _numbers(row: Mapping[str, str], start: str) -> dict[str, float]:
    return {name.removeprefix(start): float(text) for name, text in row.items() if name.startswith(start) and text}
