"""Constraints on the final model, and the footprint that is compared with them."""

from hpo.config.constraints import Constraints, Footprint, smallest_footprint


def test_violations_name_the_value_and_the_bound() -> None:
    constraints = Constraints(max_params=1000, max_latency_ms=5, max_memory_mb=10)
    assert constraints.are_set and constraints.need_inference
    assert constraints.violations(Footprint(params=1000, memory_mb=10, latency_ms=5)) == ""
    violations = constraints.violations(Footprint(params=1001, memory_mb=11, latency_ms=6)).split("; ")
    assert [violation.split("constraints.")[1] for violation in violations] == [
        "max_params is 1,000",
        "max_latency_ms is 5.0",
        "max_memory_mb is 10.0",
    ]
    assert "1,001" in violations[0] and "6 ms" in violations[1] and "11 MB" in violations[2]


def test_unmeasured_values_violate_nothing() -> None:
    assert Constraints(max_latency_ms=5).violations(Footprint(params=1, memory_mb=1)) == ""
    assert not Constraints().are_set and not Constraints(max_params=5).need_inference


def test_smallest_footprint_is_the_minimum_of_each_value() -> None:
    measured = [Footprint(params=5, memory_mb=2, latency_ms=9), Footprint(params=5, memory_mb=3, latency_ms=8)]
    assert smallest_footprint(measured) == Footprint(params=5, memory_mb=2, latency_ms=8)
    assert smallest_footprint([Footprint(params=5, memory_mb=2)]) == Footprint(params=5, memory_mb=2)
    assert smallest_footprint([]) is None
