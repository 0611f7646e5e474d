"""Brains from labels: contrasts of the sequences, labelmaps of yours, tumours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anamorph.data.files import write
from anamorph.data.image import Labelmap
from anamorph.data.phantoms import PhantomScan, phantom
from anamorph.data.phantoms.brain import read_tissues
from anamorph.data.phantoms.brain_anatomy import LABEL_NAMES, TISSUE_OF, built_in_brain
from anamorph.data.phantoms.brain_tumour import with_tumour
from anamorph.data.phantoms.scanners import SITES
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.overlap import dice

LABEL_OF = {name: label for label, name in LABEL_NAMES.items()}
COARSE = {"spacing": 5.0, "subject_smoothness_mm": 50.0, "smoothness_mm": 50.0}
ONE_T1 = {"spacing": 5.0, "subject_smoothness_mm": 50.0, "modalities": ("t1",)}


def arrays(scan: PhantomScan) -> tuple[np.ndarray, np.ndarray]:
    assert scan.labels is not None
    return scan.image.data[0].numpy(), scan.labels.data.numpy()


@pytest.fixture(scope="module")
def scans() -> dict[str, PhantomScan]:
    case = phantom("brain", 0, {**COARSE, "modalities": ("t1", "t2", "flair"), "tumour": True}).case(0)
    return {scan.image.modality or "": scan for scan in case.scans}


@pytest.fixture
def labelmap(tmp_path: Path) -> Path:
    """Shells of three labels."""
    points = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij")) - 20
    radius = np.linalg.norm(points, axis=0)
    labels = np.select([radius < 9, radius < 13, radius < 16], [3, 2, 1], 0).astype(np.int16)
    write(Labelmap.from_array(labels, np.diag([4.0, 4, 4, 1])), tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


def test_the_built_in_brain_has_the_volumes_of_an_adults() -> None:
    brain = built_in_brain(skull=False)
    labels = brain.data.numpy()
    millilitres = {name: (labels == label).sum() * brain.grid.voxel_volume / 1000 for name, label in LABEL_OF.items()}
    for name, low, high in (
        ("cortex", 400, 750),
        ("white matter", 400, 700),
        ("ventricles", 10, 50),
        ("thalamus", 8, 20),
        ("cerebellar cortex", 60, 140),
        ("brain stem", 15, 45),
    ):
        assert low < millilitres[name] < high
    assert set(np.unique(labels)) == {0, *LABEL_NAMES}
    assert set(LABEL_NAMES) <= set(TISSUE_OF)


def test_the_cortex_is_folded() -> None:
    labels = built_in_brain(skull=False).data.numpy()
    cortex = labels == LABEL_OF["cortex"]
    faces = sum(
        int(
            (
                np.take(cortex, range(1, cortex.shape[axis]), axis)
                != np.take(cortex, range(cortex.shape[axis] - 1), axis)
            ).sum()
        )
        for axis in range(3)
    )
    smooth = 4 * np.pi * 80**2 / 1.5**2  # a sphere as large as a brain, in voxel faces
    assert faces > 4 * smooth


def test_sequences_order_the_tissues_as_they_should(scans: dict) -> None:
    def medians(modality: str) -> list[float]:
        image, labels = arrays(scans[modality])
        return [float(np.median(image[labels == LABEL_OF[name]])) for name in ("ventricles", "cortex", "white matter")]

    csf, grey, white = medians("t1")
    assert csf < grey < white
    csf, grey, white = medians("t2")
    assert csf > grey > white
    csf, grey, white = medians("flair")
    assert csf < white < grey


@pytest.mark.parametrize("modality", ["t1", "t2"])
@pytest.mark.parametrize("name", ["thalamus", "putamen", "hippocampus", "cerebellar cortex", "brain stem", "cortex"])
def test_no_interval_of_intensities_segments_a_structure(modality: str, name: str, scans: dict) -> None:
    image, labels = arrays(scans[modality])
    structure = labels == LABEL_OF[name]
    bounds = np.quantile(image[structure], np.linspace(0, 1, 12))
    best = max(dice((image >= low) & (image <= high), structure) for low in bounds for high in bounds if high > low)
    assert best < 0.7


def test_a_tumour_is_bright_in_flair_and_named(scans: dict) -> None:
    named = phantom("brain", 0, {**COARSE, "tumour": True}).label_names
    tumour, oedema = (label for label, name in named.items() if name in ("tumour", "oedema"))
    image, labels = arrays(scans["flair"])
    assert (labels == tumour).sum() > 10
    white = np.median(image[labels == LABEL_OF["white matter"]])
    assert np.median(image[labels == oedema]) > 1.5 * white


def test_a_tumour_has_the_size_that_is_asked_for() -> None:
    """Its volume lies between those of the two radii, lobes and the brain's surface aside; so does the oedema's."""
    labels = built_in_brain(skull=False)
    white = [LABEL_OF["white matter"]]
    volumes = []
    for radius, oedema in ((10.0, 0.0), (24.0, 0.0), (24.0, 6.0)):
        drawing = np.random.default_rng(3)
        values, _ = with_tumour(labels.data.numpy(), labels.grid, white, 90, 91, drawing, (radius, radius), oedema)
        volumes.append([float((values == label).sum()) * labels.grid.voxel_volume for label in (90, 91)])
    for (tumour, _), radius in zip(volumes, (10.0, 24.0, 24.0), strict=True):
        assert 0.55 < tumour / (4 / 3 * np.pi * radius**3) < 1.2
    assert volumes[1][1] == 0 < volumes[2][1]
    assert volumes[1][0] == volumes[2][0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tumour": True, "tumour_mm": (20.0, 10.0)}, "radii of a tumour are a range, the least first"),
        ({"oedema_mm": 4.0}, "oedema_mm would change nothing: there is no tumour"),
    ],
)
def test_sizes_of_tumours_that_cannot_be(options: dict, line: str) -> None:
    with pytest.raises(ConfigurationError, match=f"E-SYN-002.*{line}"):
        phantom("brain", 0, options)


def test_what_is_stripped_is_dark_and_what_is_not_has_a_skull(scans: dict) -> None:
    image, labels = arrays(scans["t1"])
    assert image[labels == 0].max() == 0
    options = {"spacing": 8.0, "subject_smoothness_mm": 50.0, "modalities": ("t1",), "skull": True}
    head = phantom("brain", 0, options)
    image, labels = arrays(head.case(0).scans[0])
    assert image[labels == 0].max() > 500  # the fat of the scalp
    assert set(np.unique(labels)) <= {0, *LABEL_NAMES}


def test_a_labelmap_of_three_tissues_needs_no_table(labelmap: Path) -> None:
    brains = phantom("brain", 0, {**COARSE, "labelmap": (labelmap,)})
    assert brains.label_names == {1: "csf", 2: "gm", 3: "wm"}
    image, labels = arrays(brains.case(0).scans[0])
    assert np.median(image[labels == 3]) > np.median(image[labels == 2]) > np.median(image[labels == 1])
    assert brains.template() is not None


def test_labelmaps_take_turns_and_then_there_is_no_one_template(labelmap: Path, tmp_path: Path) -> None:
    other = Labelmap.from_array(np.full((12, 12, 12), 2), np.diag([5.0, 5, 5, 1]))
    write(other, tmp_path / "other.nii.gz")
    brains = phantom("brain", 0, {**COARSE, "labelmap": (labelmap, tmp_path / "other.nii.gz")})
    assert brains.template() is None
    found = [brains.case(index).scans[0] for index in range(3)]
    assert [len(arrays(scan)[1].ravel()) == len(arrays(found[0])[1].ravel()) for scan in found] == [True, False, True]
    assert all(scan.to_template is None for scan in found)


def test_a_table_says_what_labels_are(labelmap: Path, tmp_path: Path) -> None:
    table = tmp_path / "tissues.csv"
    table.write_text(
        "Label Number,Label Name,Class\n1,outside,CSF\n2,shell,wm\n3,core,GM\n7,nothing,\n", encoding="utf-8"
    )
    assert read_tissues(table) == ({1: "csf", 2: "wm", 3: "gm"}, {1: "outside", 2: "shell", 3: "core", 7: "nothing"})
    brains = phantom("brain", 0, {**COARSE, "labelmap": (labelmap,), "tissues": table})
    assert brains.label_names == {1: "outside", 2: "shell", 3: "core"}
    image, labels = arrays(brains.case(0).scans[0])
    assert np.median(image[labels == 2]) > np.median(image[labels == 3]) > np.median(image[labels == 1])


def test_labels_without_a_tissue_are_refused_unless_contrast_is_random(labelmap: Path, tmp_path: Path) -> None:
    table = tmp_path / "tissues.csv"
    table.write_text("label,tissue\n1,csf\n2,gm\n")
    with pytest.raises(InputError, match="such as 3") as refused:
        phantom("brain", 0, {**COARSE, "labelmap": (labelmap,), "tissues": table})
    assert refused.value.code == "E-SYN-005"
    brains = phantom("brain", 0, {**COARSE, "labelmap": (labelmap,), "contrast": "random"})
    orders = []
    for index in range(3):
        image, labels = arrays(brains.case(index).scans[0])
        orders.append(tuple(np.argsort([np.median(image[labels == label]) for label in (1, 2, 3)])))
    assert len(set(orders)) > 1


@pytest.mark.parametrize(
    "content",
    ["", "label,colour\n1,red\n", "label,tissue\none,gm\n", "label,tissue\n1,bread\n", "label,tissue\n\n-1,gm\n"],
)
def test_tables_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    table = tmp_path / "tissues.csv"
    table.write_text(content)
    with pytest.raises(InputError) as refused:
        read_tissues(table)
    assert refused.value.code == "E-SYN-006"


def test_a_hard_scanner_fades_the_contrast() -> None:
    found = {}
    for scanner in ("routine", "hard"):
        options = {"spacing": 6.0, "subject_smoothness_mm": 50.0, "modalities": ("t1",), "scanner": scanner}
        scan = phantom("brain", 0, options).case(1).scans[0]
        image, labels = arrays(scan)
        found[scanner] = [np.median(image[labels == LABEL_OF[name]]) for name in ("white matter", "ventricles")]
        assert scan.image.grid.spacing[2] == pytest.approx(18.0 if scanner == "hard" else 6.0)
    assert np.ptp(found["hard"]) < 0.8 * np.ptp(found["routine"])


def contrast(image: np.ndarray, labels: np.ndarray) -> float:
    """White against grey matter, relative to the white."""
    grey, white = (float(np.median(image[labels == LABEL_OF[name]])) for name in ("cortex", "white matter"))
    return (white - grey) / white


def test_cases_from_sites_in_turn() -> None:
    options = {**ONE_T1, "sites": ("home", "thick")}
    mixed = phantom("brain", 0, options)
    for index, site in enumerate(("home", "thick", "home")):
        alone = phantom("brain", 0, {**ONE_T1, "site": site}).case(index).scans[0]
        found = mixed.case(index).scans[0]
        assert found.image.grid.same_as(alone.image.grid)
        np.testing.assert_array_equal(found.image.data, alone.image.data)


def test_the_same_subject_at_every_site() -> None:
    """Nearer to noise, and contrast, the farther from home; labels and place are the subject's own."""
    options = ONE_T1
    at = {site: phantom("brain", 0, {**options, "site": site}).case(0).scans[0] for site in SITES}
    assert np.array_equal(arrays(at["home"])[0], arrays(phantom("brain", 0, options).case(0).scans[0])[0])
    images = {site: arrays(scan) for site, scan in at.items()}
    for site in ("sister", "contrast", "noisy"):
        assert np.array_equal(images[site][1], images["home"][1])
        assert not np.array_equal(images[site][0], images["home"][0])
    contrasts = {site: contrast(*found) for site, found in images.items()}
    assert contrasts["home"] > contrasts["sister"] > contrasts["noisy"] > contrasts["contrast"] > 0
    fine, thick = at["home"].image.grid, at["thick"].image.grid
    assert thick.shape[2] == fine.shape[2] // 2
    np.testing.assert_allclose(thick.spacing, fine.spacing * [1, 1, 2])


def test_deep_structures_as_one_label() -> None:
    options = ONE_T1
    brains = phantom("brain", 0, {**options, "subcortical": True})
    assert brains.label_names == {1: "subcortical structures"}
    one, all_ = brains.case(0).scans[0], phantom("brain", 0, options).case(0).scans[0]
    labels = arrays(all_)[1]
    deep = [LABEL_OF[name] for name in ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "brain stem")]
    assert np.array_equal(arrays(one)[1], np.isin(labels, deep).astype(labels.dtype))
    assert np.array_equal(arrays(one)[0], arrays(all_)[0])
    assert one.mask is not None
    assert all_.mask is not None
    assert bool((one.mask.data == all_.mask.data).all())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"site": "home", "scanner": "hard"}, "scanner would change nothing: the site decides"),
        ({"site": "home", "sites": ["thick"]}, "sites would change nothing: the site decides"),
        ({"sites": ["thick"], "scanner": "hard"}, "scanner would change nothing: the sites decide"),
        ({"site": "far"}, "found 'far', expected 'home'"),
        ({"subcortical": True, "tumour": True}, "subcortical leaves no label for the tumour"),
        ({"subcortical": True, "labelmap": ("a.nii",)}, "subcortical would change nothing"),
    ],
)
def test_sites_and_labels_that_do_not_fit(options: dict, found: str) -> None:
    with pytest.raises(ConfigurationError, match=f"E-SYN-002: .*{found}"):
        phantom("brain", 0, options)
