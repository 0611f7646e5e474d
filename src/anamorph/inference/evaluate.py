"""Methods over a cohort, scored by the referee on every case's own grid.

One failing case does not stop the rest: it becomes one row, ``failed``, with the reason. What is finished is kept in a
folder, so that an interrupted evaluation goes on.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from anamorph.data.cohort import Cohort, Pair, PairRule, Scan
from anamorph.data.files import atomic_write, check_same_space, file_state, read, read_labels, read_mask
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.landmark_files import paired, read_landmarks
from anamorph.data.network_grid import counted_as
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphError, AnamorphWarning, InputError, NumericalError, warn
from anamorph.evaluation.cases import (
    LandmarkPairs,
    cost_scores,
    failed_case,
    registration_scores,
    segmentation_scores,
)
from anamorph.evaluation.metrics import FAILED
from anamorph.evaluation.scores import Score, of_case
from anamorph.evaluation.topology import topology_scores
from anamorph.inference.contenders import Registered, Registrar, Segmented, Segmenter
from anamorph.inference.image_translators import ImageTranslator, JudgedTranslation, Truth, true_map
from anamorph.inference.warp import comparable, warp
from anamorph.pairwise.register import Progress

RULES: tuple[PairRule, ...] = get_args(PairRule)

OnCase = Callable[[str, str, Sequence[Score]], None]
Spared = Collection[tuple[str, str]]
"""(pair, method) that is not asked for."""

Item = TypeVar("Item", Pair, Scan)
Contender = TypeVar("Contender", Registrar, Segmenter, ImageTranslator)


@dataclass(frozen=True, eq=False)
class Side:
    """One image of a pair and its truth."""

    image: Image
    labels: Labelmap | None
    landmarks: Landmarks | None


def evaluate_registration(
    pairs: Sequence[Pair],
    registrars: Sequence[Registrar],
    folder: Path,
    *,
    names: Mapping[int, str] | None = None,
    count_as: Mapping[int, int] | None = None,
    progress: Progress | None = None,
    on_case: OnCase | None = None,
) -> list[Score]:
    """Register every pair by every method and score it; rows by pair, then method.

    Args:
        pairs: what to register.
        registrars: by unlike names.
        folder: where finished rows are kept.
        names: the labels that are scored; by default all that both images have.
        count_as: label -> the one that it counts as in both images.
        progress: told the share that is done.
        on_case: told each case, method and its scores.
    """

    def score(pair: Pair, registrar: Registrar) -> list[Score]:
        fixed, moving = _side(pair.fixed), _side(pair.moving)
        found = registrar.run(pair, fixed.image, moving.image)
        return _registration(pair, fixed, moving, found, names, count_as or {}) + _costs(found)

    more = f"count_as {sorted(count_as.items())}" if count_as else ""
    return _all(pairs, registrars, score, folder, progress, on_case, more)


def evaluate_translation(
    pairs: Sequence[Pair],
    translators: Sequence[ImageTranslator],
    folder: Path,
    *,
    listed: Sequence[Pair] = (),
    spared: Spared = frozenset(),
    progress: Progress | None = None,
    on_case: OnCase | None = None,
) -> list[Score]:
    """Translate the moving image of every pair by every method and compare it with the fixed one; rows as above.

    The fixed image is brought to where the moving one lies, by the true map of the pair where one is known. Without one
    both are taken to lie in one place, as scans of one session.

    Args:
        pairs: of two modalities of one case.
        translators: by unlike names.
        listed: pairs whose true maps may be known, among them those that are judged, or their reverse.
        folder, progress, on_case: as in ``evaluate_registration``.
        spared: of ``pairs_for``; none by default.
    """

    def score(pair: Pair, translator: ImageTranslator) -> list[Score]:
        source, truth = truth_of(pair, listed)
        found = translator.run(pair, source, truth)
        return [*found.compared.scores, *_costs(found)]

    return _all(pairs, translators, score, folder, progress, on_case, task="translate", spared=spared)


def by_target(scores: Iterable[Score], pairs: Iterable[Pair]) -> list[Score]:
    """Scores of translations, each labelled with what it is a translation to: "to ct", "to ct, inside the mask".

    So no mean is over translations to several modalities, whose intensities may be on different scales.

    Args:
        scores: of ``evaluate_translation``.
        pairs: that they are about.
    """
    targets = {pair.name: target_label(pair.fixed.modality) for pair in pairs}
    return [row if row.metric == FAILED else of_target(row, targets[row.case]) for row in scores]


def of_target(score: Score, target: str) -> Score:
    """A score with the label of its target before its own."""
    return replace(score, label=", ".join(filter(None, (target, score.label))))


def target_label(modality: str) -> str:
    """Of the scores of translations to a modality."""
    return f"to {modality}"


def translations_of(
    pair: Pair, translators: Sequence[ImageTranslator], listed: Sequence[Pair] = ()
) -> dict[str, JudgedTranslation]:
    """What every method makes of the moving image of a pair, to look at; methods that fail are left out."""
    source, truth = truth_of(pair, listed)
    found = dict[str, JudgedTranslation]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        for translator in translators:
            with suppress(AnamorphError):  # the scores say why
                found[translator.name] = translator.run(pair, source, truth)
    return found


def truth_of(pair: Pair, listed: Sequence[Pair]) -> tuple[Image, Truth]:
    """The image of a pair that is translated, and what that is compared with; arguments as above."""
    source, truth = (read(scan.image, modality=scan.modality) for scan in (pair.moving, pair.fixed))
    mask = None if pair.moving.mask is None else read_mask(pair.moving.mask, source.grid)
    return source, Truth(truth, true_map(pair, listed, source.grid, truth.grid), mask)


def evaluate_segmentation(
    scans: Sequence[Scan],
    segmenters: Sequence[Segmenter],
    folder: Path,
    *,
    names: Mapping[int, str] | None = None,
    learn_as: Mapping[int, int] | None = None,
    topology: bool = True,
    progress: Progress | None = None,
    on_case: OnCase | None = None,
) -> list[Score]:
    """Segment every labelled scan by every method and score it; rows by scan, then method.

    Args:
        scans: what to segment; one without labels is a failure.
        segmenters: by unlike names.
        learn_as: label of the truth -> the one that it counts as, as in ``Plan``.
        topology: whether pieces, holes and the like of each label are counted, and compared with the truth's.
        folder, names, progress, on_case: as in ``evaluate_registration``; ``names`` by default are all labels of the
            truth and of the segmentation.
    """

    def score(scan: Scan, segmenter: Segmenter) -> list[Score]:
        if scan.labels is None:
            raise ValueError("no labels to compare with")
        found = segmenter.run(scan, read(scan.image, modality=scan.modality))
        truth = found.truth or read_labels(scan.labels)
        check_same_space(truth.grid, found.labels.grid, scan.labels)
        a, b = counted_as(truth.data.numpy(), learn_as or {}), found.labels.data.numpy()
        called = names or _names(a, b, truth)
        scores = segmentation_scores(a, b, truth.grid.spacing, called)
        if topology:
            scores += topology_scores(b, called, truth=a, atlas=found.atlas)
        return [*scores, *found.scores, *_costs(found)]

    more = ["topology"] if topology else []
    if learn_as:
        more.append(f"learn_as {sorted(learn_as.items())}")
    return _all(scans, segmenters, score, folder, progress, on_case, " ".join(more))


def chosen_pairs(
    cohort: Cohort, rule: PairRule | None, fixed_modality: str | None = None, moving_modality: str | None = None
) -> tuple[Pair, ...]:
    """Pairs to evaluate: by default the listed ones where there are any, and else those within cases.

    Raises:
        InputError: E-EVA-013, there are none.
    """
    rule = rule or ("listed" if cohort.listed else "within")
    found = cohort.pairs(rule, fixed_modality, moving_modality)
    if not found:
        others = [other for other in RULES if cohort.pairs(other, fixed_modality, moving_modality)]
        do = f"choose --rule {others[0]}, perhaps with --most-items" if others else "see --split and the modalities"
        raise InputError("E-EVA-013", f"no pair by the rule {rule!r}", expected="one at least", do=do)
    return found


def pairs_for(
    pairs: Sequence[Pair], methods: Sequence[Registrar | ImageTranslator], most: int | None = None, *, shared: bool
) -> tuple[Sequence[Pair], Spared]:
    """The pairs to judge methods by, of those that they were made for by their modalities.

    Args:
        pairs: all that there are.
        methods: by unlike names.
        most: pairs at most, evenly from all.
        shared: whether every method does every pair; if not, each does its own.

    Returns:
        The pairs, and which of them a method is spared.

    Raises:
        InputError: E-EVA-018, none of the pairs is for a method, or for all of them where ``shared``.

    Warns:
        W-EVA-018: some of the pairs are not for a method.
    """
    refused = {method.name: _refused(method, pairs) for method in methods}
    flags = "see --rule, --fixed-modality and --moving-modality"
    for name, errors in refused.items():
        if errors and len(errors) == len(pairs):
            why = next(iter(errors.values()))
            raise InputError("E-EVA-018", f"no pair for {name}: {why.found}", expected=why.expected, do=flags)
    fits = all if shared else any
    left = [pair for pair in pairs if fits(pair.name not in errors for errors in refused.values())]
    choosy = [name for name, errors in refused.items() if errors]
    if not left:
        raise InputError(
            "E-EVA-018", f"no pair that {' and '.join(choosy)} were all made for", do="evaluate them apart"
        )
    chosen = spread(left, most)
    for name in choosy:
        own = [pair for pair in chosen if pair.name not in refused[name]]
        if not own:
            raise InputError(
                "E-EVA-018", f"no pair for {name} among {len(chosen)}", do=f"raise --most-items, or {flags}"
            )
        does = "these alone are judged" if shared else f"it is judged by {len(own)}"
        made = f"{name} was made for {len(pairs) - len(refused[name])} of {len(pairs)} pairs; {does}"
        warn("W-EVA-018", f"{made} ({_sides_in_flags(own) or flags})")
    return chosen, {(pair.name, name) for name in choosy for pair in chosen if pair.name in refused[name]}


def _sides_in_flags(pairs: Sequence[Pair]) -> str:
    """What chooses such pairs on the command line, where one modality a side does."""
    sides = {"fixed": {pair.fixed.modality for pair in pairs}, "moving": {pair.moving.modality for pair in pairs}}
    return " ".join(f"--{side}-modality {min(names)}" for side, names in sides.items() if len(names) == 1)


def _refused(method: Registrar | ImageTranslator, pairs: Sequence[Pair]) -> dict[str, InputError]:
    """By pair."""
    return {pair.name: error for pair in pairs if (error := _refusal(method, pair)) is not None}


def _refusal(method: Registrar | ImageTranslator, pair: Pair) -> InputError | None:
    try:
        method.admit(pair)
    except InputError as error:
        return error
    return None


def spread(items: Sequence[Item], most: int | None) -> Sequence[Item]:
    """At most so many items, evenly from all, the first and the last among them."""
    if most is None or len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / max(most - 1, 1))] for place in range(most)]


def _all(
    items: Sequence[Item],
    methods: Sequence[Contender],
    score: Callable[[Item, Contender], list[Score]],
    folder: Path,
    progress: Progress | None,
    on_case: OnCase | None,
    more: str = "",
    task: str = "",
    spared: Spared = frozenset(),
) -> list[Score]:
    """The scores of all items by all methods.

    ``more`` says what else is scored, which makes other rows void; ``task`` what else one method may do with one item.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Score] = []
    wanted = [(item, method) for item in items for method in methods if (item.name, method.name) not in spared]
    for done, (item, method) in enumerate(wanted):
        if progress is not None:
            progress("evaluate", done / len(wanted))
        kept = folder / f"{_digest(item.name, method.name, *filter(None, [task]))[:24]}.json"
        files = _files(item, masks=task == "translate")
        stamp = _digest(version("anamorph"), method.stamp, *files, *filter(None, [more, task]))
        found = _read_rows(kept, stamp)
        if found is None:
            found = of_case(_scores_or_failure(item, method, score), item.name, method.name)
            if all(row.metric != FAILED for row in found):  # a failure is tried again
                _write_rows(kept, stamp, found)
        rows += found
        if on_case is not None:
            on_case(item.name, method.name, found)
    if progress is not None:
        progress("evaluate", 1.0)
    return rows


def _scores_or_failure(item: Item, method: Contender, score: Callable[[Item, Contender], list[Score]]) -> list[Score]:
    """The scores, or the one row of a failure; warnings of single cases are the case's own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        try:
            return score(item, method)
        except Exception as error:
            line = str(error) if isinstance(error, (AnamorphError, ValueError)) else ""
            return failed_case(line or type(error).__name__)


def _side(scan: Scan) -> Side:
    image = read(scan.image, modality=scan.modality)
    labels = None if scan.labels is None else read_labels(scan.labels)
    if labels is not None and scan.labels is not None:
        check_same_space(image.grid, labels.grid, scan.labels)
    return Side(image, labels, None if scan.landmarks is None else read_landmarks(scan.landmarks, image.grid))


def _registration(
    pair: Pair,
    fixed: Side,
    moving: Side,
    found: Registered,
    names: Mapping[int, str] | None,
    count_as: Mapping[int, int],
) -> list[Score]:
    grid = fixed.image.grid
    displacement = found.transform.displacement_on(grid)
    inverse, no_inverse = None, ""
    try:
        inverse = found.transform.inverse().displacement_on(moving.image.grid)
    except NumericalError as error:  # it folds: of everything else there are scores
        no_inverse = str(error)
    backward = None if found.backward is None else found.backward.displacement_on(moving.image.grid)
    warped = warp(moving.image, found.transform, grid)
    seen = comparable(fixed.image, moving.image, found.transform)
    labels: tuple[np.ndarray | None, np.ndarray | None] = None, None
    if fixed.labels is not None and moving.labels is not None:
        warped_labels = warp(moving.labels, found.transform, grid)
        a, b, before = (counted_as(one.data.numpy(), count_as) for one in (fixed.labels, warped_labels, moving.labels))
        labels, names = (a, b), names or _names(a, before, moving.labels, fixed.labels)
    points = None
    if fixed.landmarks is not None and moving.landmarks is not None:
        there, back = paired(fixed.landmarks, moving.landmarks)
        points = LandmarkPairs(there.points, back.points, there.names)
    truth = None
    if pair.displacement is not None:
        truth = read_transform(pair.displacement, grid=grid).displacement_on(grid).astype(np.float64)
    return registration_scores(
        displacement_mm=displacement,
        affine=grid.affine,
        transform=found.transform,
        fixed=fixed.image.data[0].numpy(),
        warped=warped.data[0].numpy(),
        seen=seen,
        same_scale=pair.fixed.modality == pair.moving.modality,
        fixed_labels=labels[0],
        warped_labels=labels[1],
        names=names,
        landmarks=points,
        true_mm=truth,
        true_mask=None if fixed.labels is None else fixed.labels.data.numpy() > 0,
        inverse_mm=inverse,
        inverse_affine=moving.image.grid.affine,
        no_inverse=no_inverse,
        backward_mm=backward,
    )


def _names(a: np.ndarray, b: np.ndarray, *labelmaps: Labelmap) -> dict[int, str]:
    """Every label of two arrays but the background, by what the files call it."""
    known = {value: name for labels in labelmaps for value, name in labels.names.items()}
    values = sorted({*np.unique(a).tolist(), *np.unique(b).tolist()} - {0})
    return {value: known.get(value, str(value)) for value in values}


def _costs(found: Registered | Segmented | JudgedTranslation) -> list[Score]:
    if found.seconds is None:
        return []
    if found.device == "cuda":
        return cost_scores(found.seconds, "gpu", peak_gpu_memory_mib=found.peak_mib)
    return cost_scores(found.seconds, "cpu", found.peak_mib)


def _files(item: Pair | Scan, masks: bool = False) -> Iterable[str]:
    """The state of every file that a case's scores depend on, its masks among them or not."""
    scans = (item.fixed, item.moving) if isinstance(item, Pair) else (item,)
    paths = [path for scan in scans for path in (scan.image, scan.labels, scan.landmarks)]
    paths += [scan.mask for scan in scans] if masks else []
    for path in [*paths, item.displacement if isinstance(item, Pair) else None]:
        if path is not None and path.exists():
            yield file_state(path)


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _write_rows(path: Path, stamp: str, rows: Sequence[Score]) -> None:
    with atomic_write(path) as part:
        content = {"stamp": stamp, "rows": [asdict(row) | {"value": repr(row.value)} for row in rows]}
        part.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")


def _read_rows(path: Path, stamp: str) -> list[Score] | None:
    """What was written under the same stamp; a number travels as text, since it may be infinite."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [Score(**row | {"value": float(row["value"])}) for row in content["rows"]]
        return rows if content["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
