"""Who is best, who is better and what is missing, on tables small enough to see it."""

from __future__ import annotations

import math

import pytest

from anamorph.errors import ConfigurationError
from anamorph.evaluation.cases import failed_case
from anamorph.evaluation.comparison import compare
from anamorph.evaluation.notes import notes_on, shortened
from anamorph.evaluation.scores import Score, of_case

CASES = [f"c{k}" for k in range(10)]


def scores(method, values, metric="dice", label="", unit=""):
    """One score a case, in order; text is a reason for a value that is missing."""
    rows = []
    for case, value in zip(CASES, values, strict=False):
        missing = isinstance(value, str)
        number = (math.inf if "image" in value and "both" not in value else math.nan) if missing else value
        rows.append(Score(metric, number, unit, label, value if missing else "", case, method))
    return rows


def ramp(start):
    return [start + 0.01 * k for k in range(10)]


def column_of(found, metric="dice", label=""):
    return next(column for column in found.columns if (column.metric, column.label) == (metric, label))


THREE = [*scores("low", ramp(0.5)), *scores("high", ramp(0.8)), *scores("middle", ramp(0.7))]


def test_the_best_and_the_second_best_and_who_is_worse():
    cells = column_of(compare(THREE)).cells
    assert {method: cell.place for method, cell in cells.items()} == {"low": 0, "high": 1, "middle": 2}
    assert {method: cell.superscript for method, cell in cells.items()} == {"low": "*†", "high": "", "middle": "*"}
    assert cells["low"].summary.mean == pytest.approx(0.545)
    (against_best, against_second) = cells["low"].challenges
    assert (against_best.rival, against_second.rival) == ("high", "middle")
    assert against_best.test.gain == pytest.approx(0.3)
    assert cells["middle"].challenges[0].question == "best"
    assert cells["high"].challenges == ()


def test_lower_is_better_for_distances():
    rows = [*scores("a", ramp(5.0), "hd95_mm", unit="mm"), *scores("b", ramp(7.0), "hd95_mm", unit="mm")]
    cells = column_of(compare(rows), "hd95_mm").cells
    assert (cells["a"].place, cells["b"].place) == (1, 2)
    assert cells["b"].superscript == "*"
    assert cells["b"].challenges[0].test.gain == pytest.approx(2)


def test_equals_share_a_place_and_nothing_is_marked_where_all_are_equal():
    rows = [*scores("a", ramp(0.5)), *scores("b", ramp(0.5)), *scores("c", ramp(0.4))]
    assert [cell.place for cell in column_of(compare(rows)).cells.values()] == [1, 1, 0]
    assert [cell.place for cell in column_of(compare(rows[:20])).cells.values()] == [0, 0]
    assert [cell.superscript for cell in column_of(compare(rows[:20])).cells.values()] == ["", ""]
    assert [cell.place for cell in column_of(compare(rows[:10])).cells.values()] == [0]


def test_a_metric_that_nobody_knows_is_neither_ranked_nor_tested():
    rows = [*scores("a", ramp(5.0), "mystery"), *scores("b", ramp(7.0), "mystery")]
    found = compare(rows)
    assert all(cell.place == 0 and not cell.challenges for cell in column_of(found, "mystery").cells.values())
    assert "Mystery: neither way is known to be better, so nothing is marked" in notes_on(found)


def test_a_failure_is_worse_than_any_value_and_is_told():
    rows = [*scores("a", [*ramp(0.9)[:9], "empty in the result"]), *scores("b", ramp(0.5))]
    found = compare(rows)
    cells = column_of(found).cells
    assert (cells["a"].place, cells["b"].place) == (2, 1)
    assert cells["a"].failed == {"c9": "empty in the result"}
    assert (cells["a"].summary.n, cells["b"].summary.n) == (9, 10)
    assert cells["a"].challenges[0].test.left_out == ("c9",)
    assert cells["a"].challenges[0].test.n == 9
    assert "a: no value in 1 of 10 cases (c9) for any metric: empty in the result" in notes_on(found)


def test_a_note_tells_labels_without_a_name_as_labels():
    rows = [*scores("a", [*ramp(0.9)[:9], "lost"], label="2"), *scores("a", ramp(0.9), label="1")]
    assert "a: no value in 1 of 10 cases (c9) for Dice of label 2: lost" in notes_on(compare(rows))


def test_a_structure_that_is_nowhere_is_no_failure():
    rows = [*scores("a", [*ramp(0.9)[:9], "empty in both images"], label="cyst"), *scores("b", ramp(0.5), label="cyst")]
    found = compare(rows)
    cell = column_of(found, "dice", "cyst").cells["a"]
    assert (cell.place, cell.absent, cell.failed) == (1, ("c9",), {})
    assert "cyst: nothing to measure in 1 of 10 cases (c9), as neither image has it" in notes_on(found)


def test_a_label_that_a_method_does_not_list_is_in_neither_image_but_a_case_it_does_not_list_is_a_failure():
    rows = [*scores("a", ramp(0.9)[:9], label="liver"), *scores("b", ramp(0.8), label="liver")]
    rows.append(Score("dice", 0.0, label="ghost", case="c0", method="b", reason="empty in the truth"))
    found = compare(rows)
    assert column_of(found, "dice", "liver").cells["a"].failed == {"c9": "no score"}
    assert "a" not in column_of(found, "dice", "ghost").cells
    rows.append(Score("dice", 0.4, label="ghost", case="c1", method="a"))
    assert column_of(compare(rows), "dice", "ghost").cells["a"].absent == ("c0",)


def test_a_case_without_any_result_says_why():
    rows = [
        *scores("a", ramp(0.9)[:9]),
        *of_case(failed_case("E-REG-013: no overlap"), "c9", "a"),
        *scores("b", ramp(0.8)),
    ]
    found = compare([*rows, *of_case(failed_case("it is not installed"), "c0", "absent")])
    assert column_of(found).cells["a"].failed == {"c9": "E-REG-013: no overlap"}
    notes = list(notes_on(found))
    assert "a: no value in 1 of 10 cases (c9) for any metric: E-REG-013: no overlap" in notes
    assert "absent: no scores at all (it is not installed)" in notes


TWO_SCALES = [
    Score(metric, value, unit, f"to {target}", case=f"{target}{k}", method=method)
    for metric, unit, sizes in (
        ("rmse", "intensity", {"ct": 80.0, "mr": 0.1}),
        ("seconds_cpu", "s", {"ct": 1, "mr": 3}),
    )
    for target, size in sizes.items()
    for rank, method in enumerate(("a", "b"), 1)
    for k in range(3)
    for value in [size * rank + k * size / 100]
]


def test_translations_to_two_scales_have_no_common_mean():
    inside = [Score("rmse", 0.2, label="to mr, inside the mask", case="mr0", method="a")]
    found = compare([*TWO_SCALES, *inside])
    assert [(column.title, column.cells["a"].summary.n) for column in found.leading] == [
        ("RMSE, to ct", 3), ("RMSE, to mr", 3), ("Time, CPU, to ct", 3), ("Time, CPU, to mr", 3),
    ]  # fmt: skip
    assert found.leading[1].cells["a"].summary.mean == pytest.approx(0.101)
    assert {column.label for column in found.columns} == {"to ct", "to mr", "to mr, inside the mask"}
    assert column_of(found, "rmse", "to mr").cells["b"].challenges[0].test.n == 3
    assert [column.title for column in compare(TWO_SCALES, metrics=["rmse"], labels=["to mr"]).leading] == [
        "RMSE, to mr"
    ]


def test_a_method_that_fails_on_all_of_a_part_says_why():
    """Its other part has values, so that the table alone would look as if it had not been asked."""
    rows = [row for row in TWO_SCALES if (row.method, row.label) != ("b", "to mr")]
    failed = [row for k in range(3) for row in of_case(failed_case(f"E-VAL-004: mr {k}.nii: flat"), f"mr{k}", "b")]
    found = compare([*rows, *failed])
    assert column_of(found, "rmse", "to mr").cells["b"].failed["mr1"] == "E-VAL-004: mr 1.nii: flat"
    assert "b" not in column_of(compare(rows), "rmse", "to mr").cells


def test_one_failure_is_none_of_what_a_method_never_measures():
    one_head = [*scores("one head", [0.8] * 9), *of_case(failed_case("E-VAL-004: flat"), "c9", "one head")]
    both = [*scores("both", [0.7] * 10), *scores("both", [1.0] * 10, "inverse_consistency_mean_mm")]
    found = compare([*one_head, *both])
    assert list(column_of(found, "inverse_consistency_mean_mm").cells) == ["both"]
    assert sum("one head" in note for note in notes_on(found)) == 1


def test_reasons_that_differ_by_the_file_alone_are_told_once():
    rows = [*scores("a", ramp(0.9)[:8]), *scores("b", ramp(0.8))]
    for case in ("c8", "c9"):
        rows += of_case(failed_case(f"E-MOD-005: {case}_ct.nii.gz: modality ct, expected mr"), case, "a")
        rows += of_case(failed_case(f"E-VAL-004: {case}.nii: no contrast"), case, "c")
    notes = list(notes_on(compare(rows)))
    assert "a: no value in 2 of 10 cases (c8, c9) for any metric: E-MOD-005: modality ct, expected mr" in notes
    assert "c: no scores at all (E-VAL-004: no contrast)" in notes


def test_one_case_cannot_be_tested():
    rows = [*scores("a", [0.9]), *scores("b", [0.8])]
    found = compare(rows)
    cells = column_of(found).cells
    assert (cells["a"].place, cells["b"].superscript) == (1, "")
    assert math.isnan(cells["a"].summary.sd)
    assert "No test: 1 pair, at least 7 are needed for a level of 0.01" in notes_on(found)


def test_few_pairs_come_with_a_warning_and_what_ranks_say():
    """One case in ten is worse, and by more than any other is better: of 1024 signs 43 rank as high, 0.042."""
    told = "With 10 pairs the bootstrap errs more often than its level says; Wilcoxon's p is"
    assert f"{told} at most 0.01 too where a mark stands" in notes_on(compare(THREE))
    gains = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, -0.2]
    rows = [*scores("a", [0.5] * 10), *scores("b", [0.5 + gain for gain in gains])]
    assert f"{told} above 0.01 for these marks: Dice of a (0.042)" in notes_on(compare(rows))


def test_every_method_against_a_reference():
    cells = column_of(compare(THREE, reference="middle")).cells
    assert {method: cell.superscript for method, cell in cells.items()} == {"low": "*", "high": "‡", "middle": ""}
    assert [challenge.question for challenge in cells["high"].challenges] == ["reference", "above"]


def test_holm_makes_a_narrow_difference_insignificant():
    narrow = [0.9 - 0.004 + 0.02 * (-1) ** k * (k % 5) / 5 for k in range(10)]
    rows = [*scores("best", [0.9] * 10), *scores("near", narrow)]
    rows += [row for k in range(12) for row in scores(f"other {k}", narrow)]
    plain, corrected = (column_of(compare(rows, level=0.2, correct=c)).cells for c in (False, True))
    p, p_corrected = (cells["near"].challenges[0].test.p for cells in (plain, corrected))
    assert p < 0.2 < p_corrected
    assert plain["near"].superscript.startswith("*")
    assert corrected["near"].superscript == ""


def test_the_table_leads_with_what_is_usual_or_with_what_was_asked():
    rows = [
        *scores("a", ramp(0.5), "jacobian_max"),
        *scores("a", ramp(3.0), "hd95_mm", "liver", "mm"),
        *scores("a", ramp(0.5), "dice", "liver"),
        *scores("a", ramp(0.7), "nsd_1mm", "liver"),
        *scores("a", ramp(0.6), "dice", "spleen"),
    ]

    def leading(**asked):
        return [(column.metric, column.label) for column in compare(rows, **asked).leading]

    assert leading() == [("dice_mean", ""), ("hd95_mean_mm", ""), ("nsd_1mm_mean", "")]
    assert leading(metrics=["jacobian_max", "dice"]) == [("jacobian_max", ""), ("dice_mean", "")]
    assert leading(labels=["spleen"]) == [("dice", "spleen"), ("hd95_mean_mm", ""), ("nsd_1mm_mean", "")]
    assert leading(metrics=["dice"], labels=["spleen", "liver"]) == [("dice", "spleen"), ("dice", "liver")]
    assert {column.metric for column in compare(rows, metrics=["dice"]).columns} == {"dice", "dice_mean"}
    assert [column.label for column in compare(rows).by_label("dice")] == ["liver", "spleen"]
    two_heads = scores("b", ramp(1.0), "inverse_consistency_mean_mm", unit="mm")
    assert compare([*rows, *two_heads]).leading[-1].title == "Inverse consistency error"
    only = compare(scores("a", ramp(0.5), "jacobian_max"))
    assert [column.metric for column in only.leading] == ["jacobian_max"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"metrics": ["dise"]}, "no metric 'dise'; did you mean dice?"),
        ({"metrics": ["qqq"]}, "choose from dice"),
        ({"labels": ["liver"]}, "no label 'liver'"),
        ({"reference": "lowest"}, "no method 'lowest'; did you mean low?"),
    ],
)
def test_what_is_not_there_is_refused(asked, words):
    with pytest.raises(ConfigurationError, match=words) as refusal:
        compare(THREE, **asked)
    assert refusal.value.code == "E-EVA-004"


def test_the_same_seed_gives_the_same_table():
    assert compare(THREE) == compare(THREE)


def test_lists_are_shortened():
    assert shortened("abc") == "a, b, c"
    assert shortened("abcdefgh", 3) == "a, b, c and 5 more"
