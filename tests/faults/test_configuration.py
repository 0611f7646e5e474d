"""M09 to M11 of the fault catalogue: settings from YAML that are hostile, misspelt, out of range or of another time."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from pydantic import BaseModel

from anamorph.cli.main import main
from anamorph.data.configuration import load, read_configuration, save
from anamorph.data.plan import Plan

PLAN = """\
spacing: [1, 1, 2]
shape: [64, 64, 32]
modalities:
  ct: {kind: window, low: -100, high: 300}
  t1: {kind: percentiles}
"""


@pytest.fixture
def plan(tmp_path):
    """``plan(more, old, new)``: the file with lines added, or words replaced."""

    def make(more="", old="", new=""):
        assert old in PLAN
        (tmp_path / "plan.yaml").write_text((PLAN.replace(old, new) if old else PLAN) + more)
        return tmp_path / "plan.yaml"

    return make


def test_the_plan_that_the_faults_are_made_from(plan, tmp_path):
    read = load(Plan, plan("labels: {1: liver, 2: tumour}\n"))
    assert (read.shape, read.modalities["ct"].low, read.labels) == ((64, 64, 32), -100, {1: "liver", 2: "tumour"})
    save(read, tmp_path / "again.yaml")
    assert load(Plan, tmp_path / "again.yaml") == read


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
HOSTILE = [
    pytest.param("centre: !!python/object/apply:os.system [touch gone]\n", "line 6: could not", id="M09-object"),
    pytest.param("centre: !!python/name:os.system\n", "line 6: could not determine a constructor", id="M09-name"),
    pytest.param("centre: !!python/object/new:type [a]\n", "line 6: could not determine", id="M09-new"),
    pytest.param("centre: !include /etc/passwd\n", "line 6: could not determine", id="M09-include"),
    pytest.param(BOMB, "line 7: an alias", id="M09-bomb"),
    pytest.param("labels: &l {1: a}\nlabels2: {<<: *l}\n", "line 7: an alias", id="M09-merge"),
    pytest.param("spacing: [1, 1, 1]\n", "line 6: the key 'spacing' twice", id="M09-duplicate"),
    pytest.param("labels: {1: a, 1: b}\n", "line 6: the key 1 twice", id="M09-duplicate-label"),
    pytest.param('labels: {1: a, "1": b}\n', "line 6: the key '1' twice", id="M09-duplicate-as-text"),
    pytest.param("labels:\n\t1: a\n", "line 7: found character", id="M09-tab"),
    pytest.param("---\nspacing: [2, 2, 2]\n", "line 6: but found another document", id="M09-two-documents"),
    pytest.param("labels: {yes: a}\n", "line 6: a key that is no text", id="M09-key-of-truth"),
    pytest.param("labels: {1.5: a}\n", "line 6: a key that is no text", id="M09-key-of-a-number"),
    pytest.param("labels: {[1]: a}\n", "line 6: found unhashable key", id="M09-key-of-a-list"),
    pytest.param("labels: {1: a\n", "line 7: expected", id="M09-bracket"),
    pytest.param("reference: \x07\n", "no YAML (ReaderError)", id="M09-control"),
    pytest.param("reference: 2020-99-99\n", "no YAML (ValueError)", id="M09-date"),
]


@pytest.mark.parametrize(("more", "found"), HOSTILE)
def test_yaml_that_is_more_than_values(more, found, plan, tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    path = plan(more)
    with refuses("E-CFG-009", 2, tmp_path, re.escape(f"E-CFG-009: plan.yaml: {found}")):
        load(Plan, path)


WRONG = [
    pytest.param(
        "",
        "t1: {kind",
        "t1: {kind_",
        "modalities.t1.kind_: unknown key; did you mean modalities.t1.kind?",
        id="M10-key-in-a-mapping",
    ),
    pytest.param("chanels: 2\n", "", "", "chanels: unknown key; did you mean channels?", id="M10-key"),
    pytest.param(
        "kind: window\n", "", "", "kind: unknown key; did you mean modalities.t1.kind?", id="M10-key-of-another-level"
    ),
    pytest.param("zzzz: 1\n", "", "", "zzzz: unknown key", id="M10-key-like-no-other"),
    pytest.param(
        "centre: contnet\n",
        "",
        "",
        "centre: found contnet, expected view or content; did you mean content?",
        id="M10-choice",
    ),
    pytest.param(
        "",
        "window",
        "windw",
        "modalities.ct.kind: found windw, expected window, percentiles, zscore or none;",
        id="M10-choice-in-a-mapping",
    ),
    pytest.param("channels: two\n", "", "", "channels: found two, expected a valid integer", id="M10-text"),
    pytest.param("channels: 1.5\n", "", "", "channels: found 1.5, expected a valid integer", id="M10-fraction"),
    pytest.param("channels: 0\n", "", "", "channels: found 0, expected greater than or equal to 1", id="M10-range"),
    pytest.param("channels: [1]\n", "", "", "channels: found [1], expected a valid integer", id="M10-list"),
    pytest.param("", "[1, 1, 2]", "[1, 0, 2]", "spacing: found 0, expected greater than 0", id="M10-range-in-a-list"),
    pytest.param(
        "", "[1, 1, 2]", "[1, .nan, 2]", "spacing: found nan, expected a finite number", id="M10-nan-in-a-list"
    ),
    pytest.param("", "[1, 1, 2]", "[1, .inf, 2]", "spacing: found inf, expected a finite number", id="M10-inf"),
    pytest.param("", "[1, 1, 2]", "3", "spacing: found 3, expected a valid tuple", id="M10-no-list"),
    pytest.param("", "-100", ".nan", "modalities.ct.low: found nan, expected a finite number", id="M10-nan"),
    pytest.param(
        "", "-100", "400", "modalities.ct: values that do not fit each other: low is below high", id="M10-order"
    ),
    pytest.param(
        "",
        "[64, 64, 32]",
        "[64, 64]",
        "values that do not fit each other: orientation, spacing and shape",
        id="M10-lengths",
    ),
    pytest.param(
        "labels: {0: air}\n",
        "",
        "",
        "values that do not fit each other: label 0 is the background",
        id="M10-background",
    ),
    pytest.param("labels: {one: a}\n", "", "", "labels.one: found one, expected a valid integer", id="M10-label"),
]


@pytest.mark.parametrize(("more", "old", "new", "line"), WRONG)
def test_a_value_that_does_not_fit(more, old, new, line, plan, tmp_path, refuses):
    path = plan(more, old, new)
    with refuses("E-CFG-010", 2, tmp_path, re.escape(f"E-CFG-010: plan.yaml: {line}")):
        load(Plan, path)


@pytest.mark.parametrize("row", ["M10-missing"])
def test_a_key_without_a_default(row, plan, tmp_path, refuses):
    path = plan("", "shape: [64, 64, 32]\n", "")
    with refuses("E-CFG-010", 2, tmp_path, "no shape, expected plan.yaml with all that has no default"):
        load(Plan, path)


VERSIONS = [
    pytest.param("0", "version 0", id="M11-older"),
    pytest.param("2", "version 2", id="M11-newer"),
    pytest.param("'1'", "version '1'", id="M11-text"),
    pytest.param("", "version None", id="M11-nothing"),
    pytest.param("[1]", r"version \[1\]", id="M11-list"),
]


@pytest.mark.parametrize(("version", "found"), VERSIONS)
def test_a_plan_of_another_time(version, found, plan, tmp_path, refuses):
    """Whatever else it holds: an unknown key would be explained by the version."""
    path = plan(f"version: {version}\nresample_everything: true\n")
    with refuses("E-CFG-012", 2, tmp_path, f"plan.yaml: {found}, expected version 1; make it anew"):
        load(Plan, path)


class Two(BaseModel):
    """A file of which two versions are read."""

    version: Literal[1, 2] = 2


class Free(BaseModel):
    """A file whose version is its user's business."""

    version: str = "a"


@pytest.mark.parametrize("row", ["M11-several"])
def test_every_version_that_is_read_is_named(row, tmp_path, refuses):
    path = tmp_path / "two.yaml"
    path.write_text("version: 1\n")
    assert load(Two, path).version == 1
    path.write_text("version: 3\n")
    with refuses("E-CFG-012", 2, tmp_path, "version 3, expected version 1 or 2"):
        load(Two, path)
    path.write_text("version: z\n")
    assert load(Free, path).version == "z"


def folder_in_its_place(path):
    path.mkdir()


def link_to_nothing(path):
    path.symlink_to("gone.yaml")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: None, id="M10-absent"),
        pytest.param(folder_in_its_place, id="M10-folder"),
        pytest.param(link_to_nothing, id="M10-link"),
    ],
)
def test_a_file_that_cannot_be_read(make, tmp_path, refuses):
    make(tmp_path / "plan.yaml")
    with refuses("E-CFG-011", 2, tmp_path, "plan.yaml: .*expected a configuration file"):
        read_configuration(tmp_path / "plan.yaml")


@pytest.mark.parametrize("row", ["M10-flag"])
def test_a_configuration_that_is_not_there_is_a_matter_of_usage(row, tmp_path, capsys):
    assert main(["register", "a.nii", "b.nii", "--out", "c", "--config", str(tmp_path / "gone.yaml")]) == 2
    assert capsys.readouterr().err.startswith("E-CFG-011: gone.yaml: no such file or directory, expected a config")
