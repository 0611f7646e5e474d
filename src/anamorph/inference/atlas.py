"""Build an unbiased group-wise atlas by the pairwise engine: no network, no labels needed.

The start is the mean of the normalised images, each shifted so that what is bright has one centre, or a reference. In
every round each image is registered to the mean of the others, linearly in the first and deformably from then on, and
the template becomes their mean in the middle of them (``pairwise.groupwise`` has the equations and sources). A round
reads one image at a time, so memory does not grow with their number. What is finished is kept, so an interrupted build
goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import read
from anamorph.data.image import Image
from anamorph.errors import InputError
from anamorph.evaluation.appearance import normalised_cross_correlation
from anamorph.evaluation.atlas_quality import change, foreground, mean_length_mm, sharpness
from anamorph.inference.atlas_cases import (
    GroupCases,
    blurred,
    labels_of,
    question_labels,
    soft_labels,
    state_of,
)
from anamorph.inference.atlas_folder import Atlas, AtlasCard, RoundFacts, question_empty, write_atlas
from anamorph.inference.atlas_judgement import beside_each_other, measured_on, shown_on
from anamorph.inference.atlas_rounds import RoundFolder, digest, read_map, write_map
from anamorph.inference.register import register
from anamorph.inference.run_folder import environment
from anamorph.pairwise.groupwise import (
    ImageMean,
    MapMean,
    Template,
    about_centres,
    centred,
    common_grid,
    deformation_on,
    linear_part,
)
from anamorph.pairwise.groupwise_settings import GroupwiseSettings
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Transform


def build_atlas(
    scans: Sequence[Scan],
    folder: Path,
    settings: GroupwiseSettings | None = None,
    *,
    reference: Image | None = None,
    names: Mapping[int, str] | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Build an atlas and write its folder but for the page.

    A case that cannot be read or registered is left out, with a warning (W-ATL-001); labels that some labelled cases
    lack are told (W-ATL-002).

    Args:
        scans: of one modality; their order does not matter.
        folder: of the atlas; rounds that are finished there are taken over where cases and settings are the same.
        settings: ``GroupwiseSettings()`` if absent.
        reference: its grid becomes the atlas's, and the first round aligns to it; the atlas then keeps its place and
            size. By default the grid is in the middle of the cases', with their median spacing and extent.
        names: of the labels.
        device: "auto" takes a GPU where there is one.
        max_memory: bytes that a registration stays within.
        progress: told of each round.

    Raises:
        InputError: E-ATL-002, fewer than two cases can be used.
        NumericalError: E-ATL-004, the cases' maps have no mean.
    """
    settings = settings or GroupwiseSettings()
    ordered = sorted(scans, key=lambda scan: scan.name)

    def build(anew: bool) -> Atlas:
        cases = GroupCases({scan.name: scan for scan in ordered}, progress, ct_window=settings.ct_window)
        return _Build(cases, folder, settings, reference, dict(names or {}), device, max_memory, anew).run()

    try:
        return build(anew=False)
    except _MapsGone:  # an earlier build went on further than this one is to, and kept the maps of its end alone
        return build(anew=True)


class _MapsGone(Exception):
    """A round has to be done again whose predecessor's maps are not there any more."""


@dataclass(eq=False)
class _Build:
    """The state between rounds.

    Args:
        cases: those that still have a part in it.
        anew: whether finished rounds are done again.
        rounds: facts of those that are finished.
        linear: each case's linear part after the last round, where the next begins.
        shifts: of each case to the common centre, from which the start was averaged.
        values: labels that any case has.
    """

    cases: GroupCases
    folder: Path
    settings: GroupwiseSettings
    reference: Image | None
    names: dict[int, str]
    device: str
    max_memory: int | None
    anew: bool = False
    grids: dict[str, Grid] = field(default_factory=dict)
    centres: dict[str, np.ndarray] = field(default_factory=dict)
    values: set[int] = field(default_factory=set)
    linear: dict[str, Affine] = field(default_factory=dict)
    shifts: dict[str, Affine] = field(default_factory=dict)
    rounds: list[RoundFacts] = field(default_factory=list)
    stamp: str = ""

    def run(self) -> Atlas:
        """All of it."""
        self.look()
        template = self.start()
        while self.goes_on():
            template = self.round(len(self.rounds) + 1, template)
        for facts in self.rounds[:-1]:
            RoundFolder(self.folder, facts.number).drop_maps()
        return self.finish(template)

    def look(self) -> None:
        """Read every case once: grids, centres and labels; what cannot be used is left out before it does harm."""
        labelled: dict[str, set[int]] = {}
        for scan, (grid, centre, labels) in self.cases.each(
            "look", lambda scan: self.cases.look_at(scan, self.reference)
        ):
            self.grids[scan.name], self.centres[scan.name] = grid, centre
            if scan.labels is not None:
                labelled[scan.name] = labels
        self.cases.keep_one_dimension(self.grids)
        labelled = {name: labels for name, labels in labelled.items() if name in self.cases.scans}
        self.values = set().union(*labelled.values())
        question_labels(labelled, self.names)
        if self.reference is not None:
            self.grid = self.reference.grid
        else:
            self.grid = common_grid(self.grids[name] for name in self.cases.scans)
        self.measured = measured_on(self.grid)
        chosen = self.settings.model_dump(mode="json", exclude={"iterations", "tolerance"})
        where = [str(self.grid.shape), str(self.grid.affine.tolist())]
        states = [state_of(scan) for scan in self.cases.scans.values()]
        self.stamp = digest(json.dumps(chosen, sort_keys=True), *where, *states)

    def start(self) -> Template:
        """The template that the first round registers to."""
        if self.reference is not None:
            template = Template(self.cases.scene(self.reference).image[0, 0].cpu())
        else:
            mean = ImageMean(self.grid)
            centres = [self.centres[name] for name in self.cases.scans]
            self.shifts = dict(zip(self.cases.scans, about_centres(centres), strict=True))
            for _, seen in self.cases.each(
                "start", lambda scan: self.cases.seen(scan, self.shifts[scan.name], self.grid)
            ):
                mean.add(*seen)
            template = mean.template()
        RoundFolder(self.folder, 0).finish(template, self.grid, self.stamp, {})
        return template

    def goes_on(self) -> bool:
        """Whether there is another round to do."""
        done = len(self.rounds)
        return done < self.settings.iterations and (done < 2 or self.rounds[-1].change >= self.settings.tolerance)

    def round(self, number: int, template: Template) -> Template:
        """Register every case to the template, take the mean out, and average anew."""
        files = RoundFolder(self.folder, number)
        stamp = digest(self.stamp, str(number), _fingerprint(template.image), *self.cases.scans)
        after = self._taken_over(files, stamp)
        if after is None and number > 1 and not self._has_maps(number - 1, self.cases.scans):
            raise _MapsGone
        return self._round(number, template, files, stamp) if after is None else after

    def _has_maps(self, number: int, cases: Iterable[str]) -> bool:
        files = RoundFolder(self.folder, number)
        return all(files.map_file(name).is_file() for name in cases)

    def _taken_over(self, files: RoundFolder, stamp: str) -> Template | None:
        """The template of a round that an earlier attempt finished; None where there is none.

        A round that this build ends with has to have its maps, too.
        """
        done = None if self.anew else files.finished(stamp)
        if done is None:
            return None
        template, record = done
        self.rounds.append(RoundFacts.model_validate(record["facts"]))
        if not self.goes_on() and not self._has_maps(files.number, record["linear"]):
            self.rounds.pop()
            return None
        self.cases.leave_out(record["left_out"])
        self.linear = {name: Affine(np.array(matrix)) for name, matrix in record["linear"].items()}
        return template

    def _round(self, number: int, template: Template, files: RoundFolder, stamp: str) -> Template:
        before = dict(self.cases.left_out)
        maps = MapMean(with_linear=self.reference is None)
        for _, transform in self.cases.each(
            f"round {number}", lambda scan: self._found(scan, template, number, files, stamp)
        ):
            maps.add(transform)
        mean = maps.transform() if self.settings.unbiased else Affine.identity(self.grid.ndim)
        write_map(files.mean_file, mean)
        after, facts = self._averaged(number, template, files, mean)
        self.rounds.append(facts)
        record = {
            "left_out": {name: why for name, why in self.cases.left_out.items() if name not in before},
            "linear": {name: self.linear[name].matrix.tolist() for name in self.cases.scans},
            "facts": facts.model_dump(),
        }
        files.finish(after, self.grid, stamp, record)
        return after

    def _found(self, scan: Scan, template: Template, number: int, files: RoundFolder, stamp: str) -> Transform:
        """The map from the template to a case: of an earlier attempt, or found now."""
        own = digest(stamp, scan.name)
        stored = read_map(files.map_file(scan.name), own)
        if stored is not None:
            return stored.transform
        moving = read(scan.image, modality=scan.modality)
        fixed = self._others(scan, template, number)
        settings = self.settings.engine(number)
        if settings.transform != "deformable":
            width = self.settings.blur * float(self.grid.spacing.mean())
            fixed, moving = blurred(fixed, width), blurred(moving, width)
        found = register(
            fixed, moving, settings=settings, moving_mask=scan.mask, initial=self.linear.get(scan.name),
            device=self.device, max_memory=self.max_memory,
        )  # fmt: skip
        write_map(files.map_file(scan.name), found.transform, own, moving.grid)
        return found.transform

    def _others(self, scan: Scan, template: Template, number: int) -> Image:
        """The template without a case's own share in it."""
        if template.seen is None:
            return Image(template.image[None].contiguous(), self.grid)
        if number == 1:
            before: Transform = self.shifts[scan.name]
        else:
            earlier = RoundFolder(self.folder, number - 1)
            before = self._centred(scan, earlier, _mean_of(earlier))
        image, seen = self.cases.seen(scan, before, self.grid)
        others, valid = template.without(image[0], seen)
        return Image(others[None].contiguous(), self.grid, valid=None if bool(valid.all()) else valid)

    def _averaged(
        self, number: int, template: Template, files: RoundFolder, mean: Transform
    ) -> tuple[Template, RoundFacts]:
        """The new template, and what the round did."""
        average = ImageMean(self.grid)
        shown, small = foreground(template.image.numpy()), shown_on(template.image, self.measured)
        total = np.zeros((self.grid.ndim, *self.measured.shape))
        lengths, sharpnesses = [], []

        def work(scan: Scan) -> tuple[Affine, tuple[Tensor, Tensor], np.ndarray]:
            transform = self._centred(scan, files, mean)
            return (
                linear_part(transform),
                self.cases.seen(scan, transform, self.grid),
                deformation_on(transform, self.measured),
            )

        for scan, (linear, seen, moved) in self.cases.each(f"average {number}", work):
            self.linear[scan.name] = linear
            average.add(*seen)
            total += moved
            lengths.append(mean_length_mm(moved, small))
            sharpnesses.append(sharpness(seen[0][0].numpy(), self.grid.affine, shown))
        after = average.template()
        own = sharpness(after.image.numpy(), self.grid.affine, shown)
        facts = RoundFacts(
            number=number,
            kind=self.settings.kind(number),
            cases=average.count,
            change=change(template.image.numpy(), after.image.numpy(), shown),
            deformation_mm=float(np.mean(lengths)),
            mean_deformation_mm=mean_length_mm(total / average.count, small),
            sharpness=own,
            relative_sharpness=own / max(float(np.mean(sharpnesses)), 1e-12),
        )
        return after, facts

    def finish(self, template: Template) -> Atlas:
        """Labels, and how each case lies to the atlas; everything written."""
        files = RoundFolder(self.folder, len(self.rounds))
        mean, picture, small = _mean_of(files), template.image.numpy(), shown_on(template.image, self.measured)
        shown, values = foreground(picture), sorted(self.values)
        labels, rows = ImageMean(self.grid, 1 + len(values)), []

        def work(scan: Scan) -> tuple[float, float, tuple[Tensor, Tensor] | None]:
            transform = self._centred(scan, files, mean)
            image, seen = self.cases.seen(scan, transform, self.grid)
            inside = shown & (seen.numpy() > 0.5)
            alike = normalised_cross_correlation(picture, image[0].numpy(), inside)
            moved = mean_length_mm(deformation_on(transform, self.measured), small)
            found = labels_of(scan)
            return alike, moved, None if found is None else soft_labels(found, values, transform, self.grid)

        for scan, (alike, moved, soft) in self.cases.each("finish", work):
            rows.append((scan.name, alike, moved))
            if soft is not None:
                labels.add(*soft)
        names = {value: self.names.get(value, str(value)) for value in values}
        card = AtlasCard(
            modality=next(iter(self.cases.scans.values())).modality,
            shape=self.grid.shape,
            affine=tuple(tuple(row) for row in self.grid.affine.tolist()),
            labels=names,
            labelled=labels.count,
            left_out=self.cases.left_out,
            rounds=tuple(self.rounds),
            cases=tuple(beside_each_other(rows)),
            settings=self.settings.model_dump(mode="json"),
            environment=environment(),
        )
        image = Image(template.image[None].contiguous(), self.grid, card.modality, name=self.folder.name)
        probabilities = None
        if names:
            probabilities = labels.mean()
            probabilities[0] = 1 - probabilities[1:].sum(0)
        atlas = Atlas(image, names, probabilities, self.folder.resolve().name, card, None, self.folder)
        labelmap = atlas.labels()
        if labelmap is not None:
            question_empty(labelmap)
        write_atlas(atlas, self.folder)
        return atlas

    def _centred(self, scan: Scan, files: RoundFolder, mean: Transform) -> Transform:
        """A case's map with the mean taken out."""
        stored = read_map(files.map_file(scan.name))
        if stored is None:
            raise ValueError("its map was deleted during the build")
        return centred(stored.transform, mean)


def _mean_of(files: RoundFolder) -> Transform:
    """The mean map of a round.

    Raises:
        InputError: E-ATL-007, it is gone.
    """
    stored = read_map(files.mean_file)
    if stored is None:
        raise InputError("E-ATL-007", "missing or damaged", file=files.mean_file, do="build the atlas again")
    return stored.transform


def _fingerprint(template: Tensor) -> str:
    return sha256(template.numpy().tobytes()).hexdigest()
