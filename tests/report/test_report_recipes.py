"""Arms are told apart by what differs, and by nothing else."""

from __future__ import annotations

from segue.report.tables import compare, flatten


def test_named_parts_become_their_name_and_their_parameters_go_under_it() -> None:
    recipe = {"offline": {"name": "cql", "alpha": 5.0}, "bridges": [{"name": "q-filter", "percentile": 25.0}]}
    assert flatten(recipe) == {
        ("offline",): "cql",
        ("offline", "cql", "alpha"): "5",
        ("bridges",): "q-filter",
        ("bridges", "q-filter", "percentile"): "25",
    }


def test_only_differing_fields_differ() -> None:
    differing, shared = compare({"a": {"steps": 10, "batch": 256}, "b": {"steps": 20, "batch": 256}})
    assert differing == {("steps",): {"a": "10", "b": "20"}}
    assert shared == {("batch",): "256"}


def test_a_field_that_one_arm_lacks_differs() -> None:
    differing, _ = compare({"a": {"steps": 10}, "b": {}})
    assert differing == {("steps",): {"a": "10", "b": None}}


def test_an_arm_without_the_algorithm_differs_in_the_algorithm_and_not_in_each_of_its_parameters() -> None:
    cql = {"name": "cql", "alpha": 5.0}
    differing, shared = compare({"scratch": {"offline": None}, "tuned": {"offline": cql}})
    assert differing == {("offline",): {"scratch": "none", "tuned": "cql"}}
    assert shared == {("offline", "cql", "alpha"): "5"}


def test_one_algorithm_with_two_settings_differs_in_the_setting() -> None:
    arms = {str(alpha): {"offline": {"name": "cql", "alpha": alpha}} for alpha in (1.0, 5.0)}
    differing, shared = compare(arms)
    assert list(differing) == [("offline", "cql", "alpha")]
    assert shared == {("offline",): "cql"}


def test_equal_parameters_of_different_algorithms_are_not_compared() -> None:
    differing, _ = compare(
        {"a": {"offline": {"name": "cql", "alpha": 5.0}}, "b": {"offline": {"name": "td3-bc", "alpha": 2.5}}}
    )
    assert list(differing) == [("offline",)]
