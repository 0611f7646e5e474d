"""The page of a training: whatever is in the folder is shown, whatever is broken or absent is left out."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anamorph.methods.translation import HEALTH, PATIENCE
from anamorph.report.training import MOST_SAMPLES, render_training, strip_of

PAIRS = {"rule": "listed", "fixed_modality": "t1", "moving_modality": "t2"}
WELL = dict(zip(HEALTH, (0.52, 0.48, 0.4, 0.39, 0.97, 1.1), strict=True))
COLUMNS = (
    *("epoch", "step", "seconds", "waiting", "overflows", "generator.rate", "discriminator.rate"),
    *("generator.similarity", "discriminator.real", "validation.dice_mean"),
)
HISTORY = f"""{",".join(COLUMNS)}
1,10,5.0,0.02,0,0.001,0.002,0.9,0.25,
2,20,5.0,0.04,0,0.0005,0.001,0.5,nan,0.61
3,30,5.0,0.03,0,0.0005,0.001,0.4,0.24,0.58
"""
RECORD = {
    "status": "complete",
    "error": None,
    "configuration": {"method": "cocyclereg", "schedule": {"epochs": 3, "betas": [0.5, 0.999]}, "modality": None},
    "trained": {"epochs": 3, "steps": 30, "epoch_of_weights": 2, "halvings": 1},
    "scores": {"dice_mean": 0.61},
    "warnings": ["W-TRN-003: one scan is twice there <b>"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "history.csv").write_text(HISTORY)
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    (tmp_path / "environment.json").write_text(
        json.dumps({"torch": "2.13", "gpu": None, "libraries": {"monai": "1.6"}})
    )
    (tmp_path / "samples").mkdir()
    for epoch in range(1, 12):
        Image.fromarray(np.full((8, 8), epoch, np.uint8)).save(tmp_path / "samples" / f"epoch_{epoch:04d}.png")
    return tmp_path


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def test_everything_is_shown(folder: Path) -> None:
    html = render_training(folder)
    text = text_of(html)
    for words in (
        "Training of cocyclereg",
        "Complete",
        "Epochs 3 of 3",
        "Dice, mean 0.610 validation, epoch 2",
        "Time 0:00:15 h 3.0% waiting for data",
        "Rates halved 1",
        "W-TRN-003: one scan is twice there &lt;b&gt;",
        "Terms of the generator",
        "Terms of the discriminator",
        "Learning rate",
        "real 0.240 1 not finite",
        "Epoch 11".lower(),
        "schedule.betas 0.5, 0.999",
        "libraries.monai 1.6",
    ):
        assert words in text, words
    assert html.count("<polyline") == 7
    assert html.count("the kept weights</title>") == 1
    assert html.count("data:image/webp;base64,") == MOST_SAMPLES
    assert "modality" not in text


def test_nothing_points_outside(folder: Path) -> None:
    html = re.sub(r"base64,[A-Za-z0-9+/=]+", "", render_training(folder))
    assert re.findall(r"https?:|//[a-z]|@import|url\(|<script| style=| on[a-z]+=", html) == []
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in html


def test_one_player_needs_no_name(folder: Path) -> None:
    (folder / "history.csv").write_text("epoch,network.rate,network.similarity\n1,0.1,0.5\n")
    text = text_of(render_training(folder))
    assert "Terms By epoch" in text
    assert "Terms of" not in text
    assert "Learning rate rate 0.10" in text


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    text = text_of(render_training(tmp_path))
    assert "No record of the run" in text
    assert "No epoch is finished yet" in text
    assert "Training of a method" in text_of(render_training(tmp_path / "nowhere"))


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_complete_says_so(folder: Path, status: str) -> None:
    record = RECORD | {"status": status, "error": {"code": "E-TRN-015", "message": "E-TRN-015: it <i>overflowed</i>"}}
    (folder / "run.json").write_text(json.dumps(record))
    text = text_of(render_training(folder))
    assert status in text.lower()
    assert "E-TRN-015: it &lt;i&gt;overflowed&lt;/i&gt;" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.csv", b"\xff\xfe\x00"),
        ("history.csv", b'epoch\nfirst\n,\n"open'),
        ("history.csv", b"step,loss\n1,2\n"),
        ("run.json", b"[1, 2"),
        ("run.json", b"[1, 2]"),
        ("run.json", b'{"status": 3, "trained": 4, "scores": [], "warnings": 5, "configuration": "x", "error": 1}'),
        ("environment.json", b"nonsense"),
        ("samples/epoch_0011.png", b"\x89PNG nonsense"),
    ],
)
def test_broken_files_are_left_out(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert "Training of" in text_of(render_training(folder))


def test_an_atlas_is_shown_from_its_first_picture_to_its_last(folder: Path) -> None:
    assert 'id="atlas"' not in render_training(folder)
    for epoch in (0, 10, 20):
        Image.fromarray(np.full((8, 8), epoch, np.uint8)).save(folder / "samples" / f"atlas_{epoch:04d}.png")
    html = render_training(folder)
    assert 'href="#atlas"' in html
    section = html[html.index('<section id="atlas">') : html.index('<section id="samples">')]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", section) == ["epoch 0", "epoch 10", "epoch 20"]


def test_the_first_picture_above_the_last(tmp_path: Path) -> None:
    for epoch, grey in ((0, 10), (5, 100), (20, 200)):
        Image.fromarray(np.full((6, 8, 3), grey, np.uint8)).save(tmp_path / f"atlas_{epoch:04d}.png")
    strip = strip_of(tmp_path, "atlas")
    assert strip is not None
    with Image.open(BytesIO(strip)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (12, 8, 3)
    assert (pixels[:6] == 10).all()
    assert (pixels[6:] == 200).all()
    assert strip == strip_of(tmp_path, "atlas")
    assert strip_of(tmp_path, "epoch") is None
    (tmp_path / "atlas_0020.png").write_bytes(b"nonsense")
    assert strip_of(tmp_path, "atlas") is None
    assert strip_of(tmp_path / "nowhere", "atlas") is None


def test_the_players_of_a_translation_share_charts_under_the_names_of_their_modalities(folder: Path) -> None:
    columns = [f"{side}_{what}" for side in ("fixed", "moving") for what in HEALTH]
    names = ["epoch", "discriminator.fixed_real", "discriminator.fixed_fake", *(f"health.{name}" for name in columns)]
    rows = [",".join(map(str, [epoch, 0.2, 0.3, *(0.1 * place for place in range(len(columns)))])) for epoch in (1, 2)]
    (folder / "history.csv").write_text("\n".join([",".join(names), *rows]))
    (folder / "run.json").write_text(json.dumps(RECORD | {"configuration": {"method": "nemar", "pairs": PAIRS}}))
    html = render_training(folder)
    text = text_of(html)
    for words in (
        "t1 images real 0.200 fake 0.300",
        "answers, t1 real 0 fake 0.100",
        "answers, t2 real 0.600 fake 0.700",
        "distance, to t1 translation 0.200 true 0.300",
        "contrast over real, to t2 1.00",
    ):
        assert words in text, words
    assert html.count("<figure") == 1 + 2 * 4 + MOST_SAMPLES
    assert html.count("<polyline") == 2 * (1 + len(HEALTH))


def page_of_health(
    folder: Path,
    *states: dict[str, float],
    names: tuple[str, ...] = HEALTH,
    pairs: dict[str, str] = PAIRS,
) -> str:
    """Of a run that translates to the fixed side, with a validation every other epoch.

    Args:
        folder: of the run.
        states: what each validation found, where it is not ``WELL``.
        names: of the columns.
        pairs: of the configuration.
    """
    rows = [",".join(["epoch", *(f"health.fixed_{name}" for name in names)])]
    for number, state in enumerate(states):
        rows.append(",".join([str(2 * number + 1), *("" for _ in names)]))
        rows.append(",".join([str(2 * number + 2), *(str((WELL | state)[name]) for name in names)]))
    (folder / "history.csv").write_text("\n".join(rows))
    (folder / "run.json").write_text(json.dumps(RECORD | {"configuration": {"method": "nemar", "pairs": pairs}}))
    return render_training(folder)


def tile(html: str, name: str) -> tuple[str, ...]:
    """Tone, value and note; empty where there is none."""
    value, note = (rf'<span class="{part}">(.*?)</span>' for part in ("value", "note"))
    found = re.search(rf'<li class="(\w+)"><span class="name">{name}</span>{value}{note}', html)
    return found.groups() if found else ()


def chart(html: str, name: str) -> str:
    return next(part for part in html.split("<figure") if f"<b>{name}</b>" in part)


def drawn(html: str, name: str) -> dict[str, float]:
    """What a chart's lines are read against, and how high that is, in percent from above."""
    words = re.findall(r'<text class="named[^"]*"[^>]* y="([\d.]+)%"[^>]*>(.*?)</text>', chart(html, name))
    places = re.findall(r'<line class="reference[^"]*"[^>]* y1="([\d.]+)%"', chart(html, name))
    assert [place for place, _ in words] == places
    return {word: float(place) for place, word in words}


def noted(html: str, name: str) -> list[str]:
    return re.findall(r'<small class="note">(.*?)</small>', chart(html, name))


def test_adversaries_are_read_against_what_is_true_and_limits_that_are_near(folder: Path) -> None:
    html = page_of_health(folder, {}, {})
    assert drawn(html, "contrast over real, to t1").keys() == {"as real"}
    assert noted(html, "contrast over real, to t1") == ["fault below 0.1"]
    assert drawn(html, "distance, to t1") == {}
    assert noted(html, "distance, to t1") == ["fault below 0.1 of true"]
    assert drawn(html, "answers, t1") == {}
    assert noted(html, "answers, t1") == ["fault where real is more than 0.9 above fake"]
    alternation = drawn(html, "alternation over real, to t1")
    assert alternation["fault above 2"] < alternation["as real"]
    assert noted(html, "alternation over real, to t1") == []


def test_limits_that_values_come_near_are_drawn_where_they_lie(folder: Path) -> None:
    html = page_of_health(folder, {}, {"contrast": 0.1, "change": 0.039})
    contrast = drawn(html, "contrast over real, to t1")
    line = re.findall(r'points="[\d.]+,([\d.]+) [\d.]+,([\d.]+)"', chart(html, "contrast over real, to t1"))
    assert contrast["as real"] < float(line[0][0]) < contrast["fault below 0.1"] == float(line[0][1])
    copied = re.findall(r'class="line k0" points="[\d.]+,[\d.]+ [\d.]+,([\d.]+)"', chart(html, "distance, to t1"))
    assert drawn(html, "distance, to t1") == {"fault below 0.1 of true": float(copied[0])}


def test_only_what_is_drawn_is_explained(folder: Path) -> None:
    assert "Alternation from voxel to voxel" in page_of_health(folder, {})
    html = page_of_health(folder, {}, names=HEALTH[:-1])
    assert "Contrast of translations" in html
    assert "lternation" not in html


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("collapsed", {"contrast": 0.05}),
        ("copied", {"change": 0.01}),
        ("imbalanced", {"answer_real": 0.97, "answer_fake": 0.03}),
        ("chequered", {"alternation": 2.5}),
    ],
)
def test_a_tile_tells_how_adversaries_stand(folder: Path, fault: str, state: dict[str, float]) -> None:
    note = f"the last {PATIENCE} validations"
    ill = [state] * PATIENCE
    assert tile(page_of_health(folder, {}, *ill), "Adversaries") == ("bad", f"{fault}, to t1", note)
    assert tile(page_of_health(folder, *ill, pairs={}), "Adversaries") == ("bad", f"{fault}, to fixed", note)
    assert tile(page_of_health(folder, *ill, {}), "Adversaries") == ("good", "well", note)
    assert tile(page_of_health(folder, {}, *ill[1:]), "Adversaries") == ("good", "well", note)
    assert tile(page_of_health(folder, *ill[1:]), "Adversaries") == ()


def test_a_tile_counts_faults(folder: Path) -> None:
    both = {"contrast": 0.05, "alternation": 2.5}
    told = "collapsed, to t1; chequered, to t1"
    assert tile(page_of_health(folder, *[both] * PATIENCE), "Adversaries") == ("bad", "2 faults", told)


def test_runs_without_adversaries_have_no_tile_of_them(folder: Path) -> None:
    assert tile(render_training(folder), "Time")
    assert tile(render_training(folder), "Adversaries") == ()


def test_health_that_lost_a_column_shows_no_fault_in_it(folder: Path) -> None:
    states = [{"contrast": 0.05}] * PATIENCE
    names = tuple(name for name in HEALTH if name != "contrast")
    assert tile(page_of_health(folder, *states, names=names), "Adversaries")[1] == "well"


@pytest.mark.parametrize(
    ("pairs", "there", "back"),
    [
        (PAIRS, "Dice, t2 onto t1", "Dice, t1 onto t2"),
        (PAIRS | {"moving_modality": "t1"}, "Dice of the registration", "Dice of the registration, backward"),
        ({}, "Dice of the registration", "Dice of the registration, backward"),
    ],
)
def test_directions_are_told_by_modalities(folder: Path, pairs: dict[str, str], there: str, back: str) -> None:
    names = "validation.registration_dice", "validation.backward_registration_dice"
    (folder / "history.csv").write_text(f"epoch,{','.join(names)}\n1,0.8,0.7\n")
    scores = {"registration_dice": 0.8, "backward_registration_dice": 0.7}
    record = RECORD | {"configuration": {"pairs": pairs}, "scores": scores}
    (folder / "run.json").write_text(json.dumps(record))
    html = render_training(folder)
    assert re.findall(r"<b>(Dice.*?)</b>.*?<span>(.*?)</span>", html) == [(there, "0.800"), (back, "0.700")]
    assert (tile(html, there)[1], tile(html, back)[1]) == ("0.800", "0.700")
