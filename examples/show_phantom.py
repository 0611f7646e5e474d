"""Draw the abdominal phantom: python examples/show_phantom.py [folder]. Makes docs/images/abdomen_phantom.jpg."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from anamorph import resample
from anamorph.data.phantoms import abdomen

pair = abdomen(0, fixed_spacing=(2.6, 2.6, 2.6), moving_spacing=(2.8, 2.8, 4.0))
mr, mr_grid, ct_grid = pair.moving.data, pair.moving.grid, pair.fixed.grid
rows = {
    "CT": (pair.fixed.data, -160, 240),
    "MR, by the headers": (resample(mr, mr_grid, ct_grid), 0, 850),
    "MR, by the true map": (resample(mr, mr_grid, ct_grid, pair.truth), 0, 850),
}
tumour = np.argwhere(pair.fixed_labels.data.numpy() == 2).mean(axis=0).round().astype(int)
liver = np.isin(pair.fixed_labels.data.numpy(), (1, 2))  # the tumour is a label of its own

figure, axes = plt.subplots(3, 3, figsize=(9.6, 8.0), width_ratios=[344, 344, 250])
for line, (name, (image, low, high)) in zip(axes, rows.items(), strict=True):
    for axis, box in zip((2, 1, 0), line, strict=True):  # axial, coronal, sagittal
        picture, outline = (np.take(data, tumour[axis], axis).T for data in (image[0].numpy(), liver))
        up = "upper" if axis == 2 else "lower"  # the CT's axes run to the left, back and head
        box.imshow(picture, cmap="gray", vmin=low, vmax=high, origin=up)
        box.contour(outline, [0.5], colors="#ffb000", linewidths=0.8)
        box.set_axis_off()
    line[0].set_title(name, loc="left", fontsize=10)
figure.tight_layout(pad=0.6, h_pad=1.2)
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "images"
figure.savefig(folder / "abdomen_phantom.jpg", dpi=100, pil_kwargs={"quality": 85})
