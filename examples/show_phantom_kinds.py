"""Draw every kind of phantom: python examples/show_phantom_kinds.py [folder]. Makes docs/images/phantom_*.jpg."""

import sys
import tempfile
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from anamorph.data.phantoms import PhantomScan, phantom, synthesise

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "images"
COLOURS = ("#e6194b", "#3cb4ff", "#57d957", "#ffd21f", "#d17bff", "#ff9a3c", "#30e0d0", "#ff7bc4")


def labels_of(scan: PhantomScan) -> np.ndarray:
    assert scan.labels is not None
    return scan.labels.data.numpy()


def draw_scans(
    name: str,
    rows: dict[str, PhantomScan],
    limits: tuple[tuple[float, float], ...],
    outlined: int,
    heights: tuple[float, ...] = (0.3, 0.42, 0.54, 0.66),
) -> None:
    """Slices of scans at some heights, then one from the front and one from the side; the first labels outlined."""
    places = [*((2, height) for height in heights), (1, 0.5), (0, 0.42)]
    figure, axes = plt.subplots(len(rows), len(places), figsize=(10.2, 1.8 * len(rows)), squeeze=False)
    for line, (title, scan), (low, high) in zip(axes, rows.items(), limits, strict=True):
        turned = tuple(axis for axis in range(3) if scan.image.grid.affine[axis, axis] < 0)
        image, labels = (np.flip(data, turned) for data in (scan.image.data[0].numpy(), labels_of(scan)))
        for box, (axis, place) in zip(line, places, strict=True):
            picture, shown = (np.take(data, int(place * image.shape[axis]), axis).T for data in (image, labels))
            spacing = np.delete(scan.image.grid.spacing, axis)
            box.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=spacing[1] / spacing[0])
            for label in range(1, outlined + 1):
                if (shown == label).any():
                    box.contour(shown == label, [0.5], colors=COLOURS[label - 1], linewidths=0.7)
            if axis:  # as radiologists look at it: the patient's right is on the left
                box.invert_xaxis()
            box.set_axis_off()
        line[0].set_title(title, loc="left", fontsize=8, pad=2)
    figure.tight_layout(pad=0.3, w_pad=0.2, h_pad=0.9)
    figure.savefig(folder / f"phantom_{name}.jpg", dpi=100, facecolor="white", pil_kwargs={"quality": 80})


def draw_pictures(name: str, rows: list[list[PhantomScan]]) -> None:
    """2-D images, the outline of what is labelled about them."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(1.4 * len(rows[0]), 1.4 * len(rows)))
    for box, scan in zip(axes.flat, chain.from_iterable(rows), strict=True):
        labels = labels_of(scan).T
        box.imshow(scan.image.data[0].numpy().T, cmap="gray")
        for label in np.unique(labels)[1:]:
            box.contour(labels == label, [0.5], colors=COLOURS[(label - 1) % len(COLOURS)], linewidths=0.6)
        box.set_axis_off()
    figure.tight_layout(pad=0.2)
    figure.savefig(folder / f"phantom_{name}.jpg", dpi=100, pil_kwargs={"quality": 80})


clean, corrupt = phantom("letter_b"), phantom("letter_b", 0, {"corrupt": "all"})
draw_pictures("letter_b", [[kind.case(index).scans[0] for index in range(7)] for kind in (clean, corrupt)])
shapes = phantom("shapes", 1, {"shape": (128, 128), "spacing": 1.0, "labels": 8})
pairs = [shapes.case(index).scans for index in range(7)]
draw_pictures("shapes", [[scans[row] for scans in pairs] for row in (0, 1)])
ct, mr = phantom("abdomen", 0, {"ct_spacing": (3.2, 3.2, 5.0), "mr_spacing": (3.2, 3.2, 4.0)}).case(0).scans
draw_scans("abdomen", {"CT without contrast agent": ct, "T1": mr}, ((-130, 190), (0, 900)), 2, (0.44, 0.54, 0.64, 0.74))
hearts = {}
for scanner in ("routine", "hard"):
    ct, mr = phantom("heart", 0, {"scanner": scanner}).case(1).scans
    hearts |= {f"CT, {scanner} scanner": ct, f"MR, {scanner} scanner": mr}
draw_scans("heart", hearts, ((-150, 480), (0, 1100)) * 2, 5)
t1, t2, flair = phantom("brain", 0, {"tumour": True, "modalities": ("t1", "t2", "flair")}).case(2).scans
draw_scans("brain", {"T1": t1, "T2": t2, "FLAIR": flair}, ((0, 950), (0, 900), (0, 900)), 0)
with tempfile.TemporaryDirectory() as temporary:
    synthesise("brain", 1, 0, Path(temporary) / "t1", {"modalities": ("t1",), "spacing": 2.0})
    source, remapped = phantom("remapped", 5, {"cohort": Path(temporary) / "t1"}).case(0).scans
draw_scans("remapped", {"T1": source, "remapped": remapped}, ((0, 900), (0, 1000)), 0)
