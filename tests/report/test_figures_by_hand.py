"""Pictures: windows, colours, and one scale for all planes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from anamorph.report.figures import UNITS, draw, to_grey, window_of
from anamorph.report.inputs import ReportInputs


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")).astype(float) / 255


def test_ct_gets_the_soft_tissue_window_only_in_hounsfield_units() -> None:
    assert window_of((np.array([-1000.0, 0, 1500]),), "CT") == (-160, 240)
    assert window_of((np.linspace(0, 1, 100),), "CT")[1] <= 1
    assert window_of((np.linspace(-1000.0, -500, 100),), "CT") == (-160, 240)


def test_a_ct_with_contrast_agent_gets_a_wider_window_and_bones_do_not_count() -> None:
    air, tissue, bone = (np.full(100, value) for value in (-1000.0, 40.0, 900.0))
    blood = np.full(40, 400.0)
    assert window_of((np.concatenate([air, tissue, bone]),), "CT") == (-160, 240)
    assert window_of((np.concatenate([air, tissue, bone, blood]),), "CT") == (-160, 400)


def test_other_images_get_percentiles_of_all_images_together() -> None:
    low, high = window_of((np.linspace(0, 100, 1001), None, np.array([np.nan, np.inf])), "MR")
    assert low == pytest.approx(1)
    assert high == pytest.approx(1 + 0.995 * 99, abs=0.2)


@pytest.mark.parametrize("images", [(), (None,), (np.full(5, np.nan),), (np.full(5, 3.0),)])
def test_a_window_is_never_empty(images: tuple[np.ndarray | None, ...]) -> None:
    low, high = window_of(images, None)
    assert high > low


def test_what_is_no_number_is_black() -> None:
    values = np.array([np.nan, -np.inf, np.inf, 5, -1, 20])
    np.testing.assert_allclose(to_grey(values, (0.0, 10.0)), [0, 0, 1, 0.5, 0, 1])


def test_all_planes_share_one_scale(made_up: Callable[..., ReportInputs]) -> None:
    planes = draw(made_up()).planes
    assert [plane.name for plane in planes] == ["Axial", "Coronal", "Sagittal"]
    assert len({plane.frame for plane in planes}) == 1
    widths = {plane.name: plane.box[2] for plane in planes}
    heights = {plane.name: plane.box[3] for plane in planes}
    assert widths["Axial"] == widths["Coronal"]
    assert heights["Coronal"] == heights["Sagittal"]
    assert widths["Sagittal"] == heights["Axial"]
    for plane in planes:
        assert plane.frame[0] == UNITS
        assert plane.box[0] >= 0
        assert plane.box[1] >= 0


def test_a_picture_shows_its_slice(made_up: Callable[..., ReportInputs]) -> None:
    inputs = made_up()
    assert inputs.fixed is not None
    axial = draw(inputs).planes[0]
    picture = decoded(axial.pictures["fixed"])[..., 0]
    window = window_of((inputs.fixed,), None)
    index = int(axial.caption.split("slice ")[1].split()[0]) - 1
    whole = to_grey(inputs.fixed[:, :, index], window)[::-1, ::-1].T
    rows, columns = picture.shape
    offsets = [(r, c) for r in range(whole.shape[0] - rows + 1) for c in range(whole.shape[1] - columns + 1)]
    errors = [np.abs(whole[r : r + rows, c : c + columns] - picture).mean() for r, c in offsets]
    assert min(errors) < 0.03


def test_jacobian_colours_are_red_above_one_blue_below_and_magenta_where_folded(
    made_up: Callable[..., ReportInputs],
) -> None:
    jacobian = np.ones((20, 24, 16), np.float32)
    jacobian[:7], jacobian[7:12], jacobian[16:] = 2.0, 0.5, -1.0
    inputs = made_up(jacobian=jacobian, fixed=None, warped=None, before=None)
    axial = draw(inputs).planes[0]
    picture = decoded(axial.pictures["jacobian"])[12, ::-1]
    red, neutral, blue, folded = picture[3], picture[14], picture[9], picture[18]
    assert red[0] > red[2] + 0.3
    assert blue[2] > blue[0] + 0.3
    assert np.ptp(neutral) < 0.1
    assert folded[0] > 0.8
    assert folded[2] > 0.8
    assert folded[1] < 0.2
    assert axial.lines["folds"]


def test_legends_are_symmetric_about_one(made_up: Callable[..., ReportInputs]) -> None:
    legend = draw(made_up()).legends["jacobian"]
    low, middle, high = (text for _, text in legend.ticks)
    assert middle == "1"
    assert float(low) * float(high) == pytest.approx(1, abs=0.05)


def test_labels_keep_their_colour_from_slice_to_slice(made_up: Callable[..., ReportInputs]) -> None:
    colours = {(line.name, line.colour) for plane in draw(made_up()).planes for line in plane.labels}
    assert sorted(name for name, _ in colours) == ["Ball", "Body"]
    assert len({colour for _, colour in colours}) == 2


def test_what_is_absent_is_not_drawn(made_up: Callable[..., ReportInputs]) -> None:
    figures = draw(made_up(before=None, jacobian=None, fixed_labels=None, warped_labels=None))
    assert figures.has == {
        "fixed": True,
        "before": False,
        "warped": True,
        "grid": True,
        "displacement": True,
        "jacobian": False,
        "labels": False,
    }
    assert draw(ReportInputs(title="nothing")).planes == ()


def test_the_planes_meet_in_the_world(made_up: Callable[..., ReportInputs]) -> None:
    figures = draw(made_up())
    positions = [float(plane.caption.split(" = ")[1].split(" mm")[0]) for plane in figures.planes]
    np.testing.assert_allclose(figures.crossing_mm, positions[::-1], atol=0.06)


def test_2d_is_one_picture(made_up_2d: ReportInputs) -> None:
    figures = draw(made_up_2d)
    assert len(figures.planes) == 1
    assert all(figures.has.values())
    assert figures.crossing_mm == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_volumes_are_drawn(axis: int, made_up: Callable[..., ReportInputs]) -> None:
    inputs = made_up()
    names = ("fixed", "before", "warped", "jacobian", "fixed_labels", "warped_labels")
    thin = {name: np.take(getattr(inputs, name), [8], axis) for name in names}
    assert inputs.displacement_mm is not None
    figures = draw(replace(inputs, displacement_mm=np.take(inputs.displacement_mm, [8], axis + 1), **thin))
    assert len(figures.planes) == 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1), (2, 3, 1)])
def test_the_smallest_images_are_drawn(shape: tuple[int, ...]) -> None:
    image, d = np.ones(shape, np.float32), len(shape)
    inputs = ReportInputs(
        title="tiny",
        affine=np.eye(d + 1),
        fixed=image,
        warped=image,
        displacement_mm=np.zeros((d, *shape)),
        jacobian=image,
    )
    assert draw(inputs).has["grid"]


def test_arrays_that_do_not_fit_are_refused(made_up: Callable[..., ReportInputs]) -> None:
    with pytest.raises(ValueError, match="fixed grid"):
        made_up(warped=np.zeros((20, 24, 15), np.float32))
    with pytest.raises(ValueError, match="affine"):
        made_up(affine=None)
    with pytest.raises(ValueError, match="affine"):
        made_up(affine=np.eye(3))


@pytest.mark.parametrize(
    ("lengths", "ticks"),
    [((0.0, 4.0), ["0", "2", "4 mm"]), ((20.04, 21.96), ["20", "21", "22 mm"]), ((5.0, 5.0), ["5", "5.05", "5.1 mm"])],
)
def test_colours_of_a_nearly_constant_displacement_begin_at_its_least(
    lengths: tuple[float, float], ticks: list[str], made_up: Callable[..., ReportInputs]
) -> None:
    displacement = np.zeros((3, 20, 24, 16), np.float32)
    displacement[1] = np.linspace(*lengths, 20)[:, None, None]
    figures = draw(made_up(displacement_mm=displacement))
    assert [text for _, text in figures.legends["displacement"].ticks] == ticks
    axial = decoded(figures.planes[0].pictures["displacement"]).sum(axis=2)
    assert (float(np.ptp(axial)) > 1.5) == (lengths[0] < lengths[1])
