"""Which group a cell of a table puts a case in: the same at every site, however it is written."""

import pytest

from federated.configuration.load import resolve
from federated.data.subgroups import OTHER, group_names, group_of, meant_twice, places_of
from federated.errors import ConsiliumError
from federated.settings.sections import EvaluationSettings

AGES = (40.0, 60.0)


@pytest.mark.parametrize(
    ("cell", "group"),
    [
        ("39.9", "below 40"),
        ("40", "40 to below 60"),
        ("059Y", "40 to below 60"),
        ("59,5", "40 to below 60"),
        ("60", "60 and above"),
        ("-3", "below 40"),
        ("", OTHER),
        ("old", OTHER),
        ("nan", OTHER),
        ("inf", OTHER),
    ],
)
def test_a_number_is_in_the_group_that_it_lies_in_and_nothing_else_is(cell, group):
    assert group_names(AGES)[group_of("age", AGES, cell)] == group


@pytest.mark.parametrize(
    ("cell", "group"),
    [
        *(("F", "F"), ("f", "F"), (" female ", "F"), ("woman", "F"), ("M", "M"), ("Male", "M")),
        *(("diverse", OTHER), ("", OTHER), ("Anna Example", OTHER)),
    ],
)
def test_sex_is_told_alike_however_sites_write_it(cell, group):
    assert group_names(("F", "M"))[group_of("Sex", ("F", "M"), cell)] == group


def test_other_texts_are_compared_without_upper_case_and_white_space():
    values = ("GE Signa", "Siemens")
    assert [group_of("scanner", values, cell) for cell in ("ge  signa", "SIEMENS", "F")] == [
        0,
        1,
        2,
    ]
    # What words of a sex mean, no other attribute's do.
    assert group_of("arm", ("F", "M"), "female") == 2


def test_a_case_of_which_nothing_is_known_is_in_the_last_group():
    asked = {"sex": ("F", "M"), "Age": (50.0,)}
    told = places_of([{"sex": "m", "age": "50"}, {"sex": "", "other": "x"}], 2, asked)
    assert {name: list(own) for name, own in told.items()} == {"sex": [1, 2], "Age": [1, 2]}
    assert list(places_of(None, 3, asked)["sex"]) == [2, 2, 2]


def test_a_value_that_means_the_same_as_another_is_found():
    assert meant_twice("sex", ("F", "M", "female")) == "female"
    assert meant_twice("scanner", ("A", "a ")) == "a "
    assert meant_twice("sex", ("F", "M")) is None
    assert meant_twice("age", AGES) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("sex", "attributes are expected with their values"),
        ({}, "1 to 8 attributes"),
        ({"sex": "F"}, "sex needs a list"),
        ({"sex": []}, "sex needs a list"),
        ({"sex": ["F", 1]}, "all text or all numbers"),
        ({"ill": [True, False]}, "all text or all numbers"),
        ({"age": [60, 40]}, "bounds of age have to rise"),
        ({"age": [40, 40]}, "bounds of age have to rise"),
        ({"age": [40, float("inf")]}, "bounds of age have to rise"),
        ({"sex": ["F"], "SEX": ["M"]}, "the attribute sex is there twice"),
        ({"sex": None}, "1 to 8 attributes"),
        ({"sex": ["F", ""]}, "all text or all numbers"),
        ({f"a{n}": ["x"] for n in range(9)}, "1 to 8 attributes"),
    ],
)
def test_what_is_no_set_of_groups_is_refused_by_name(value, said):
    with pytest.raises(ConsiliumError, match=said) as told:
        resolve("made", {"evaluation": {"subgroups": value}}, "a test")
    assert "evaluation.subgroups" in str(told.value)


def test_groups_survive_being_written_and_read_and_are_left_out_where_there_are_none():
    asked = EvaluationSettings.model_validate({"subgroups": {"sex": ["F", "M"], "age": [40, 60]}})
    again = EvaluationSettings.model_validate(asked.model_dump(mode="json"))
    assert again == asked
    assert hash(again) == hash(asked)
    assert asked.subgroups == {"sex": ("F", "M"), "age": (40.0, 60.0)}
    plain = EvaluationSettings().model_dump(mode="json")
    assert not {"subgroups", "uncertainty"} & plain.keys()
