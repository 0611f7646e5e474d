"""Group S of the fault catalogue, as far as the report goes: names, private text, network, size, failed runs."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anamorph.report.inputs import ReportInputs
from anamorph.report.page import render
from anamorph.report.tables import score_table

HOSTILE = "<script>alert(1)</script>"
HOSTILE_NAMES = [HOSTILE, "</script><script>alert(1)//", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "';alert(1)//"]
SHAPE = (18, 20, 16)


def ball(radius: float) -> np.ndarray:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return i**2 + j**2 + (k - 0.2) ** 2 < radius**2


@cache
def hostile_report() -> str:
    """Every place that takes a name is given a hostile one."""
    fixed = ball(0.8) * 90.0 + ball(0.4) * 50 + np.random.default_rng(0).uniform(0, 9, SHAPE)
    labels = ball(0.4).astype(np.int32) + ball(0.2)
    name = " ".join(HOSTILE_NAMES)
    return render(
        ReportInputs(
            title=f"{name} onto ct.nii.gz",
            message=name,
            affine=np.diag([2.0, 2.0, 3.0, 1.0]),
            fixed=fixed,
            before=np.roll(200 - fixed, 2, axis=0),
            warped=200 - fixed,
            fixed_modality=name,
            displacement_mm=np.zeros((3, *SHAPE)),
            jacobian=np.ones(SHAPE),
            fixed_labels=labels,
            warped_labels=labels,
            label_names={1: HOSTILE, 2: name},
            further_images={name: fixed},
            scores=[{"metric": name, "label": name, "unit": name, "value": 1.0, "reason": name}],
            warnings=[f"W-NII-004: {name}", name],
            settings={name: {name: name}},
            facts={name: name, f"{name} ": {name: name}},
            seconds_by_stage={name: 1.0},
        )
    )


# -- in a browser ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page: the document it ended with, and the URLs the page asked for."""

    document: str
    requests: tuple[str, ...]

    @property
    def root(self) -> Mapping[str, str]:
        """Attributes of the document's root element."""
        found = re.search(r"<html([^>]*)>", self.document)
        return dict(re.findall(r'([\w-]+)="([^"]*)"', found[1])) if found else {}


def visit(page: str, folder: Path) -> Visit:
    """Open a page from ``file://`` in headless Chromium, with every host name made unknown."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed, so no browser can open the report")
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
        *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}"),
        *("--virtual-time-budget=20000", "--dump-dom", (folder / "page.html").as_uri()),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    log = json.loads((folder / "net.json").read_text())
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in log["events"] if event["type"] == started and "params" in event]
    # The browser's own traffic (its update check, its clock) has no origin; a page's requests name the page's.
    return Visit(
        finished.stdout, tuple(p["url"] for p in asked if p.get("initiator", "not an origin") != "not an origin")
    )


@pytest.fixture(scope="module")
def hostile_visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    return visit(hostile_report(), tmp_path_factory.mktemp("report"))


def test_the_browser_test_would_see_a_request(tmp_path: Path) -> None:
    page = "<!DOCTYPE html><html data-csp='0'><body><img src='https://example.invalid/picture.png'></body></html>"
    assert visit(page, tmp_path).requests == ("https://example.invalid/picture.png",)


@pytest.mark.parametrize("promise", [pytest.param("no request", id="S04-no-request")])
def test_the_report_asks_for_nothing(promise: str, hostile_visit: Visit) -> None:
    assert hostile_visit.requests == ()


@pytest.mark.parametrize("promise", [pytest.param("drawn", id="S04-viewer-draws")])
def test_the_viewer_draws_under_the_policy(promise: str, hostile_visit: Visit) -> None:
    assert hostile_visit.root["data-viewer"] == promise
    assert hostile_visit.root["data-csp"] == "0", "the page broke its own policy"


@pytest.mark.parametrize("name", [pytest.param(name, id=f"S01-browser-{i}") for i, name in enumerate(HOSTILE_NAMES)])
def test_a_hostile_name_is_text_in_the_browser(name: str, hostile_visit: Visit) -> None:
    assert hostile_visit.root["data-csp"] == "0", "something tried to run"
    body = re.sub(r"<script.*?</script>", "", hostile_visit.document, flags=re.DOTALL)
    assert "<img" not in body
    assert html.escape(name, quote=False) in body


# -- without a browser -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(name, id=f"S01-{i}") for i, name in enumerate(HOSTILE_NAMES)])
def test_a_hostile_name_is_escaped_everywhere(name: str) -> None:
    page = hostile_report()
    assert html.escape(name, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    if "<" in name:
        assert name not in page
    assert page.count("<script") == 9, "the page's own: its code, the viewer's code, the index, six volumes"


@pytest.mark.parametrize("name", [pytest.param(HOSTILE, id="S01-index")])
def test_a_hostile_label_reaches_the_viewer_as_data(name: str) -> None:
    found = re.search(r'id="viewer-index">(.*?)</script>', hostile_report(), re.DOTALL)
    assert found is not None
    assert "<" not in found[1]
    assert json.loads(found[1])["names"][1] == name


@pytest.mark.parametrize("name", [pytest.param("[link=https://example.invalid]x[/link]", id="S01-terminal")])
def test_a_hostile_name_is_text_in_the_terminal(name: str) -> None:
    table = score_table([{"metric": name, "label": name, "unit": "", "value": 1.0, "reason": name}])
    assert [str(cell) for cell in table.columns[1].cells] == [name, name]


def embedded_volumes(page: str) -> Iterator[nib.Nifti1Image]:
    for text in re.findall(r'<script type="text/plain" id="volume-[^"]*">([^<]*)</script>', page):
        yield nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


@pytest.mark.parametrize("field", ["descrip", "aux_file", "intent_name", "db_name"])
@pytest.mark.parametrize("row", [pytest.param("S02", id="S02-embedded-headers")])
def test_embedded_volumes_carry_no_text(row: str, field: str) -> None:
    volumes = list(embedded_volumes(hostile_report()))
    assert len(volumes) == 6
    for volume in volumes:
        assert volume.header[field].item().strip(b"\0") in (b"", b"n+1")
        assert len(volume.header.extensions) == 0


@pytest.mark.parametrize("row", [pytest.param("S02", id="S02-pictures")])
def test_embedded_pictures_carry_no_metadata(row: str) -> None:
    pictures = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", hostile_report())
    assert len(pictures) == 15
    for picture in pictures:
        content = base64.b64decode(picture)
        assert not any(chunk in content for chunk in (b"EXIF", b"XMP ", b"ICCP"))


@pytest.mark.parametrize("count", [pytest.param(40, id="S05-many")])
def test_many_volumes_stay_under_30_mb(count: int) -> None:
    """A volume's share depends neither on its size nor on their number; noise needs the whole of it."""
    noise = np.random.default_rng(0).uniform(0, 1, (80, 80, 80)).astype(np.float32)
    further = {f"sequence {i}": noise for i in range(4)}
    page = render(ReportInputs(title="many", affine=np.eye(4), fixed=noise, further_images=further))
    shares = [len(share) for share in re.findall(r'id="volume-[^"]*">([^<]*)', page)]
    assert len(shares) == 5
    assert count * max(shares) + len(page) - sum(shares) < 30e6


@pytest.mark.parametrize("size", [pytest.param(256, id="S05-large")])
def test_a_large_volume_keeps_to_its_share(size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size,) * 3, dtype=np.uint8)
    assert len(render(ReportInputs(title="large", affine=np.eye(4), fixed=noise))) < 3e6


@pytest.mark.parametrize(
    "known",
    [
        pytest.param((), id="S06-nothing"),
        pytest.param(("fixed",), id="S06-fixed"),
        pytest.param(("fixed", "before"), id="S06-not-registered"),
        pytest.param(("fixed", "before", "warped"), id="S06-folded"),
    ],
)
def test_a_failed_run_has_a_report_that_says_why(known: tuple[str, ...]) -> None:
    why = "E-REG-001: mr.nii.gz: the images do not overlap, expected at least 10 %; give --initial"
    image = ball(0.8) * 100.0
    page = render(
        ReportInputs(
            title="mr.nii.gz onto ct.nii.gz",
            status="failed",
            message=why,
            affine=np.eye(4) if known else None,
            **dict.fromkeys(known, image),
        )
    )
    assert ">Failed<" in page
    assert html.escape(why) in page
    assert page.count("<image ") == 3 * len(known)
