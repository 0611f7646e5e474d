"""The page of a training: whatever is in the folder is shown, whatever is broken or absent is left out."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anamorph.methods.translation import HEALTH
from anamorph.report.training import MOST_SAMPLES, render_training, strip_of

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
    pairs = {"rule": "listed", "fixed_modality": "t1", "moving_modality": "t2"}
    (folder / "run.json").write_text(json.dumps(RECORD | {"configuration": {"method": "nemar", "pairs": pairs}}))
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
