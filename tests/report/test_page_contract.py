"""The page keeps its promises: one file, nothing from outside, only what was given."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from anamorph.report.inputs import ReportInputs
from anamorph.report.page import render


class Page(HTMLParser):
    """Elements with their attributes, the text of scripts and styles, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[tuple[str, dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag in ("script", "style") and data.strip():
            self.code.append((tag, attributes, data))
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(made_up: Callable[..., ReportInputs]) -> Page:
    return Page(render(made_up()))


def test_the_policy_names_every_script_and_style_by_its_hash(page: Page) -> None:
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    ran = [(tag, text) for tag, attributes, text in page.code if attributes.get("type") is None]
    assert len(ran) == 2
    for tag, text in ran:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules[f"{tag}-src"]


def test_the_policy_comes_before_anything_it_governs(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.index("meta") < tags.index("style") < tags.index("script")
    assert page.elements[tags.index("meta") + 1][1].get("http-equiv") == "Content-Security-Policy"


def test_nothing_points_outside(made_up: Callable[..., ReportInputs]) -> None:
    html = re.sub(r"[A-Za-z0-9+/=]{200,}", "", render(made_up()))
    assert re.findall(r"https?:|//[a-z]|@import|url\((?!#)", html) == []
    for _, attributes in Page(html).elements:
        for name in ("href", "src", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/webp;base64"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)


def test_every_reference_finds_one_target(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(names) == len(set(names))
    wanted = {(a.get("href") or "")[1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    for attribute in ("clip-path", "mask", "fill"):
        values = [a.get(attribute) or "" for _, a in page.elements]
        wanted |= {value[5:-1] for value in values if value.startswith("url(#")}
    wanted |= {a["for"] or "" for _, a in page.elements if a.get("for")}
    assert wanted - set(names) == set()


def test_everything_given_is_told(page: Page) -> None:
    for text in (
        "mr.nii.gz onto ct.nii.gz",
        "Complete, with 1 warning",
        "W-NII-004",
        "read as plain NIfTI",
        "no voxel has the label",
        "affine.levels 2, 1",
        "affine.use_moments yes",
        "Fixed image File ct.nii.gz",
        "3.00 to 1.50",
        "By label Label Dice HD95 mm Body",
        "By landmark Landmark Landmark error mm hilum 1.50",
        "Ball",
        "mm, slice",
        "Licence of the viewer NiiVue",
    ):
        assert text in page.text


def test_a_report_is_small(made_up: Callable[..., ReportInputs]) -> None:
    assert len(render(made_up())) < 1.5e6


def test_the_same_inputs_give_the_same_page(made_up: Callable[..., ReportInputs]) -> None:
    assert render(made_up()) == render(made_up())


@pytest.mark.parametrize(
    ("absent", "heading"),
    [
        ({"before": None}, "Before and after"),
        ({"warped": None}, "Checkerboard"),
        ({"jacobian": None}, "Volume change"),
        ({"displacement_mm": None}, "Displacement"),
        ({"scores": ()}, "By label"),
        ({"settings": {}}, "Settings"),
        ({"seconds_by_stage": {}}, "Stages"),
    ],
)
def test_what_is_absent_leaves_its_section_out(
    absent: dict[str, object], heading: str, made_up: Callable[..., ReportInputs]
) -> None:
    assert heading in Page(render(made_up())).text
    assert heading not in Page(render(made_up(**absent))).text


def test_2d_has_pictures_and_no_viewer(made_up_2d: ReportInputs) -> None:
    html = render(made_up_2d)
    assert 'id="viewer-code"' not in html
    assert html.count("<image ") == 5
    assert len(html) < 2e5


@pytest.fixture
def segmentation(made_up: Callable[..., ReportInputs]) -> Callable[..., ReportInputs]:
    """``segmentation(**changes)``: the body and the ball, found and true."""
    absent = dict.fromkeys(("before", "warped", "displacement_mm", "jacobian", "warped_labels"))
    truth = made_up().fixed_labels

    def make(**changes: object) -> ReportInputs:
        scores = [{"metric": "hd95_mean_mm", "label": "", "unit": "mm", "value": 1.25, "reason": ""}]
        everything = {"kind": "segmentation", "found_labels": truth, "warnings": (), "scores": scores}
        return made_up(**(absent | everything | changes))

    return make


def test_a_segmentation_shows_outlines_and_nothing_of_a_registration(
    segmentation: Callable[..., ReportInputs],
) -> None:
    html = render(segmentation())
    page = Page(html)
    for text in ("Segmentation report", "Labels found 2 each has voxels", "HD95 1.25 mm mean over the labels",
                 "Solid outlines are the labels found, dashed ones the true labels", "Body", "Ball"):  # fmt: skip
        assert text in page.text
    for text in ("Registration", "Checkerboard", "Before and after", "Deformation", "Fixed image", "Warped"):
        assert text not in page.text.replace("Fixed image File ct.nii.gz", "")
    assert html.count('class="label"') == html.count('class="label dashed"') > 0
    volumes = [a["id"] for tag, a in page.elements if tag == "script" and (a.get("id") or "").startswith("volume-")]
    assert volumes == ["volume-fixed", "volume-found-labels", "volume-fixed-labels"]


def test_a_segmentation_without_truth(segmentation: Callable[..., ReportInputs]) -> None:
    html = render(segmentation(fixed_labels=None, scores=()))
    assert "The labels found, over the image." in Page(html).text
    assert 'class="label dashed"' not in html
    assert 'name="outlines" value="true"' not in html


def test_a_label_that_is_nowhere_makes_doubtful(segmentation: Callable[..., ReportInputs]) -> None:
    names = {3: "Body", 7: "Ball", 9: "Tumour"}
    page = Page(render(segmentation(label_names=names)))
    assert "Complete, but look at: labels found" in page.text
    assert "2 of 3 none of Tumour" in page.text
