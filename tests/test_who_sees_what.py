"""Each row of the table in docs/who-sees-what.md has tests that show it, in every column.

A row is named by the beginning of its first cell. A test is ``FILE::NAME``, or ``FILE::CLASS`` for
all of a class; it has to be there.
"""

import ast
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "who-sees-what.md"
STAGES, FLOWS = "tests/federated/stages", "tests/flows"
PROTECTION = "tests/federated/protection"
WORLDS = f"{STAGES}/test_two_worlds.py"
SEALED = f"{STAGES}/test_sealed_keys.py"
MASKED = f"{STAGES}/test_secagg.py"
SUMS = f"{STAGES}/test_opened_sums.py"
STATISTICS = "tests/federated/learning/test_statistics.py"
EVALUATE = f"{STAGES}/test_evaluate.py"
APART = f"{WORLDS}::test_a_stage_opens_no_file_of_the_other_side"
NO_IMAGE = f"{WORLDS}::test_sites_send_what_the_protocol_asks_for_and_no_image_or_label"
NO_SINGLE_CASE = f"{EVALUATE}::test_labels_and_probabilities_leave_a_site_with_predictions_alone"
NO_MASK = f"{EVALUATE}::test_of_a_segmentation_sums_are_sent_and_no_case_and_no_mask"
IN_THE_CLEAR = f"{EVALUATE}::test_no_protection_hides_a_sites_statistics"
CLOSED = f"{FLOWS}/test_private_records.py::test_no_label_counts_or_case_indices_leave_the_sites"
LOSSES = "tests/attacks_found/test_counts_in_a_loss.py"
VALIDATION = (
    f"{FLOWS}/test_private_records.py"
    "::test_what_validation_finds_in_a_private_runs_cases_lies_with_the_sites"
)
TIMES = (
    f"{FLOWS}/test_private_records.py"
    "::test_no_times_or_memory_of_a_private_sites_stages_are_recorded"
)
NOT_TOLD = [VALIDATION, TIMES, f"{LOSSES}::test_of_a_private_run_no_loss_is_told"]
PICTURES = [
    f"{FLOWS}/test_segmentation.py::test_a_run_segments_registers_draws_and_predicts",
    f"{FLOWS}/test_segmentation.py::test_the_stages_of_dvc_leave_out_a_bad_case_and_evaluate",
    "tests/attacks_found/test_parties_coordinator.py::"
    "test_pictures_that_the_plan_does_not_have_are_not_made",
]
SEEN_BY_ALL = f"{WORLDS}::test_what_all_are_told_is_the_plan_the_state_and_nothing_of_a_site"
NAMED = f"{STAGES}/test_secure_sum.py"
SUMMED = f"{NAMED}::test_a_sum_gives_the_metrics_of_statistics_and_those_of_no_site"
HIDDEN = [
    f"{NAMED}::test_the_coordinator_reads_a_sites_part_in_the_clear_alone",
    f"{NAMED}::test_a_sum_with_one_site_fewer_is_not_opened_in_another_attempt",
    f"{NAMED}::test_a_sum_with_one_site_fewer_is_not_opened_in_another_run",
    f"{NAMED}::test_a_sum_of_too_few_or_of_others_is_not_opened",
]
OWN_MODEL = [
    f"{STAGES}/test_lying_coordinator.py"
    "::test_a_policy_that_keeps_the_own_model_keeps_the_shares_of_its_layers_too",
    f"{STAGES}/test_lying_coordinator.py::test_a_policy_that_keeps_the_own_model_keeps_its_values",
]
COUNTED = f"{STAGES}/test_statistics_sums.py"
HIDDEN_COUNTS = [
    f"{COUNTED}::test_the_coordinator_reads_a_sites_counts_in_the_clear_alone",
    f"{COUNTED}::test_a_sum_with_one_site_left_out_is_not_opened",
    f"{COUNTED}::test_a_sum_of_too_few_sites_is_not_opened",
    f"{COUNTED}::test_sites_without_cases_hide_nobody",
]
DISTANT = f"{COUNTED}::TestPolicies"
HARMONISED = f"{STAGES}/test_harmonisation_sums.py"
AS_CENTRALLY = (
    f"{HARMONISED}::test_the_standard_is_that_of_all_cases_and_features_are_harmonised_as_centrally"
)
SCALE = [
    AS_CENTRALLY,
    "tests/federated/weights/test_harmonised_header.py"
    "::test_training_and_prediction_bring_images_to_one_scale",
]
EXACT_ALONE = f"{HARMONISED}::test_landmarks_and_features_are_summed_exactly_or_not_at_all"
NO_ROW_OF_A_SITE = (
    "tests/federated/planning/test_combat.py"
    "::test_no_number_of_the_sum_is_of_one_site_alone_and_all_are_within_their_bounds"
)
CALIBRATED = f"{STAGES}/test_calibration.py"
CALIBRATION_HIDDEN = [
    f"{CALIBRATED}::test_of_what_is_summed_nothing_of_a_site_is_sent_in_the_clear",
    f"{CALIBRATED}::test_a_protected_sum_gives_the_calibration_of_statistics_and_that_of_no_site",
    f"{NAMED}::test_the_coordinator_reads_a_sites_part_in_the_clear_alone",
]
CALIBRATION_TOLD = [
    f"{CALIBRATED}::test_in_the_clear_the_coordinator_reads_those_of_each_site",
    f"{CALIBRATED}::test_statistics_leave_a_site_and_no_case",
    "tests/federated/exchange/test_policy.py"
    "::test_a_policy_of_before_there_was_any_calibration_allows_none",
]
KEPT_WITH_MODEL = [
    f"{CALIBRATED}::test_a_record_gives_the_model_what_it_predicts_with",
    f"{CALIBRATED}::test_a_protected_sum_gives_the_calibration_of_statistics_and_that_of_no_site",
]
GROUPS = f"{STAGES}/test_final_evaluation.py"
GROUP_SUMS = f"{STAGES}/test_final_sums.py"
HIDING_GROUPS = "tests/federated/learning/test_subgroup_suppression.py"
GROUPS_TOLD = [
    f"{GROUPS}::test_no_case_leaves_a_site_and_no_text_of_its_table",
    f"{GROUPS}::test_small_groups_and_those_they_follow_from_are_hidden",
    f"{GROUPS}::test_of_a_data_set_a_careful_site_tells_of_one_set_of_groups_alone",
    f"{GROUPS}::test_a_site_takes_part_in_no_run_with_subgroups_that_its_policy_refuses",
    f"{HIDING_GROUPS}::test_no_small_group_can_be_read_nor_what_a_model_makes_of_one",
    f"{HIDING_GROUPS}::test_nor_from_two_attributes_together",
]
GROUPS_HIDDEN = [
    *GROUPS_TOLD,
    f"{GROUP_SUMS}::test_of_what_is_summed_nothing_of_a_site_can_be_read",
    f"{GROUP_SUMS}::test_a_sum_of_one_site_fewer_is_not_opened_after_it",
]
GROUPS_OF_ALL = [
    "tests/flows/test_subgroups.py"
    "::test_a_run_tells_of_groups_in_its_summary_its_page_and_its_card",
    "tests/flows/test_subgroups.py::test_small_groups_are_hidden_in_all_that_a_run_leaves",
    f"{GROUP_SUMS}::test_a_protected_sum_gives_the_groups_of_statistics",
]
RLWE = f"{PROTECTION}/test_rlwe_secagg.py::TestAttacks"

# For each row the tests of its columns: plain; ckks and packed_bfv; secagg_plus and rlwe_secagg.
SHOWN: dict[str, tuple[list[str], list[str], list[str]]] = {
    "a site's images and labels": ([APART, NO_IMAGE], [APART, NO_IMAGE], [APART, NO_IMAGE]),
    "labels and predictions of single": (
        [NO_SINGLE_CASE],
        [NO_SINGLE_CASE, IN_THE_CLEAR],
        [NO_SINGLE_CASE, IN_THE_CLEAR],
    ),
    "in segmentation, each case's": (
        [
            f"{STATISTICS}::test_what_is_sent_has_the_same_form_whatever_the_cases",
            f"{STATISTICS}::test_the_order_of_cases_is_not_in_what_is_sent",
            NO_MASK,
        ],
        [IN_THE_CLEAR, NO_MASK],
        [IN_THE_CLEAR, NO_MASK],
    ),
    "counts and sums over a site": (
        [NO_SINGLE_CASE],
        [IN_THE_CLEAR, *HIDDEN],
        [IN_THE_CLEAR, *HIDDEN],
    ),
    "these over all sites together": ([SUMMED], [SUMMED], [SUMMED]),
    "what of a site's validation": (CALIBRATION_TOLD, CALIBRATION_HIDDEN, CALIBRATION_HIDDEN),
    "counts and sums over groups": (GROUPS_TOLD, GROUPS_HIDDEN, GROUPS_HIDDEN),
    "metrics and numbers of cases of such groups": (GROUPS_OF_ALL, GROUPS_OF_ALL, GROUPS_OF_ALL),
    "the temperature, and the thresholds": (KEPT_WITH_MODEL, KEPT_WITH_MODEL, KEPT_WITH_MODEL),
    "pictures of test cases": (PICTURES, PICTURES, PICTURES),
    "n_k of each site": ([SEEN_BY_ALL], [SEEN_BY_ALL], [SEEN_BY_ALL]),
    "which cases a site has": ([CLOSED, NO_IMAGE], [CLOSED, NO_IMAGE], [CLOSED, NO_IMAGE]),
    "counts of a site's training cases": (
        [f"{COUNTED}::test_the_coordinator_reads_a_sites_counts_in_the_clear_alone"],
        HIDDEN_COUNTS,
        HIDDEN_COUNTS,
    ),
    "the mean loss of a site": (
        [
            f"{LOSSES}::test_in_the_clear_it_tells_how_many_cases_of_a_class_a_site_trains_on",
            f"{LOSSES}::test_of_a_private_run_no_loss_is_told",
        ],
        [f"{LOSSES}::test_where_updates_are_hidden_no_loss_is_told"],
        [f"{LOSSES}::test_where_updates_are_hidden_no_loss_is_told"],
    ),
    "such counts over all sites": (
        [f"{COUNTED}::test_statistics_equal_those_that_are_computed_centrally", DISTANT],
        [f"{COUNTED}::test_statistics_equal_those_that_are_computed_centrally", DISTANT],
        [f"{COUNTED}::test_statistics_equal_those_that_are_computed_centrally", DISTANT],
    ),
    "landmarks of a site's intensities": (
        [f"{COUNTED}::test_the_coordinator_reads_a_sites_counts_in_the_clear_alone", EXACT_ALONE],
        HIDDEN_COUNTS,
        HIDDEN_COUNTS,
    ),
    "the standard scale of intensities": (SCALE, SCALE, SCALE),
    "what a site adds to its features": (
        [NO_ROW_OF_A_SITE, AS_CENTRALLY],
        [NO_ROW_OF_A_SITE, AS_CENTRALLY],
        [NO_ROW_OF_A_SITE, AS_CENTRALLY],
    ),
    "what validation finds": (NOT_TOLD, NOT_TOLD, NOT_TOLD),
    "a site's own model": (OWN_MODEL, OWN_MODEL, OWN_MODEL),
    "a site's update": (
        [f"{WORLDS}::test_in_the_clear_the_coordinator_reads_a_sites_update"],
        [
            f"{SUMS}::test_what_is_not_the_sum_is_not_opened",
            f"{SUMS}::test_a_sum_of_others_than_it_is_said_to_be_of_is_not_opened",
            f"{SUMS}::test_a_sum_that_a_site_in_it_does_not_help_to_is_not_opened",
            f"{PROTECTION}/test_flooding.py::TestKeyRecovery",
        ],
        [
            f"{PROTECTION}/test_secagg_lies.py"
            "::test_two_halves_that_are_told_of_a_site_that_it_responded_and_that_it_did_not",
            f"{PROTECTION}/test_secagg_lies.py"
            "::test_a_site_that_masked_with_few_who_are_then_all_said_to_be_missing",
            f"{MASKED}::test_a_site_answers_nothing_that_too_few_others_have_signed",
            f"{MASKED}"
            "::test_a_site_shares_nothing_where_a_key_is_not_the_one_that_its_owner_signed",
            RLWE,
        ],
    ),
    "the sum of a round": (
        [f"{WORLDS}::test_in_the_clear_the_coordinator_reads_a_sites_update"],
        [f"{SUMS}::test_an_honest_sum_is_opened_and_applied"],
        ["tests/federated/protection/test_secagg.py", RLWE],
    ),
    "a site's key": (
        [APART],
        [
            f"{WORLDS}::test_the_coordinator_has_no_key_and_all_sites_have_the_same",
            f"{SEALED}::test_the_exchange_and_the_coordinators_folder_have_no_byte_of_a_key",
            f"{SEALED}::test_a_site_that_the_coordinator_has_made_up_is_not_sealed_to",
            f"{SEALED}::test_a_site_that_the_holder_does_not_know_any_more_is_not_sealed_to",
        ],
        [RLWE],
    ),
    "the model": ([SEEN_BY_ALL], [SEEN_BY_ALL], [SEEN_BY_ALL]),
}


def rows() -> list[list[str]]:
    """The cells of the page's first table, without its head."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| --- "))
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


@cache
def names(path: str) -> set[str]:
    """The tests and classes of a file."""
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_row_of_the_table_has_tests_and_every_column_of_it() -> None:
    told = rows()
    assert len(told) == len(SHOWN)
    for cells in told:
        (key,) = (key for key in SHOWN if cells[0].startswith(key))
        assert len(cells) == 4, cells[0]
        assert all(SHOWN[key]), key


def test_the_tests_that_are_named_are_there() -> None:
    for columns in SHOWN.values():
        for test in (each for column in columns for each in column):
            path, _, name = test.partition("::")
            assert (PROJECT / path).is_file(), test
            assert not name or name in names(path), test
