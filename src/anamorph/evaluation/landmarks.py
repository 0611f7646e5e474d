"""How far a transform carries landmarks from where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.scores import Score

Points = Float[np.ndarray, "_ _"]


def target_registration_error_mm(mapped: Points, moving: Points) -> Float[np.ndarray, " points"]:
    """The distance of each fixed landmark, mapped, from its moving partner, mm."""
    if mapped.shape != moving.shape:
        raise InputError(
            "E-LMK-020",
            f"{len(mapped)} fixed and {len(moving)} moving landmarks",
            expected="pairs in the same order",
            do="match the two lists by name",
        )
    return np.linalg.norm(mapped - moving, axis=1)


def landmark_scores(
    fixed: Points,
    moving: Points,
    transform: Callable[[Points], Points],
    names: Sequence[str] | None = None,
) -> list[Score]:
    """The target registration error of each landmark, their mean, median, 95th percentile and maximum.

    Args:
        fixed: landmarks of the fixed image, N d, RAS mm.
        moving: the same landmarks in the moving image.
        transform: carries fixed points to moving points.
        names: of the landmarks; without them they are numbered from 1.

    Raises:
        InputError: E-LMK-020, the two lists or the names differ in number.
    """
    if not len(fixed) and not len(moving):
        return [Score("tre_mean_mm", np.nan, "mm", reason="no landmarks")]
    error = target_registration_error_mm(transform(fixed), moving)
    names = [str(k + 1) for k in range(len(error))] if names is None else names
    if len(names) != len(error):
        raise InputError("E-LMK-020", f"{len(names)} names for {len(error)} landmarks", expected="one name each")
    error = np.where(np.isfinite(error), error, np.nan)
    reasons = ["the transform maps it to no finite point" if np.isnan(value) else "" for value in error]
    rows = [Score("tre_mm", float(v), "mm", name, why) for v, name, why in zip(error, names, reasons, strict=True)]
    lost = f"the transform maps {sum(map(bool, reasons))} landmarks to no finite point" if any(reasons) else ""
    summary = {
        "tre_mean_mm": error.mean(),
        "tre_median_mm": np.median(error),
        "tre_p95_mm": np.percentile(error, 95),
        "tre_max_mm": error.max(),
    }
    return rows + [Score(metric, float(value), "mm", reason=lost) for metric, value in summary.items()]


def structure_errors(scores: Iterable[Score], structures: Mapping[str, Sequence[str]]) -> list[Score]:
    """The mean target registration error of each structure, by case and method, as ``tre_mm`` of its name.

    Args:
        scores: of cases; the ``tre_mm`` of landmarks among them are read.
        structures: name -> its landmarks; of a case that lacks some of them, the mean of the others.

    Raises:
        ConfigurationError: E-EVA-004, a landmark that no case has.
    """
    errors: dict[tuple[str, str], dict[str, Score]] = {}
    for row in scores:
        if row.metric == "tre_mm":
            errors.setdefault((row.case, row.method), {})[row.label] = row
    known = sorted({name for found in errors.values() for name in found})
    for name in (landmark for landmarks in structures.values() for landmark in landmarks):
        if name not in known:
            do = f"choose from {', '.join(known)}" if known else ""
            raise ConfigurationError("E-EVA-004", f"the scores have no landmark {name!r}", do=do)
    rows = []
    for (case, method), found in errors.items():
        for structure, landmarks in structures.items():
            own = [found[name] for name in landmarks if name in found]
            if own:
                mean, why = float(np.mean([row.value for row in own])), next((r.reason for r in own if r.reason), "")
                rows.append(Score("tre_mm", mean, "mm", structure, why, case=case, method=method))
    return rows
