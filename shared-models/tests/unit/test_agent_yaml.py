"""Hostile YAML is refused by its depth, its number of values or its keys, before a document is built from it."""

import pytest

from shared_models.agents import MAX_DEPTH, MAX_VALUES, ConfigError, check_yaml, parse_agent


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[" * 4096, "more than 50 collections in one another"),
        ("a: " + "{a: " * 4096, "more than 50 collections in one another"),
        ("- " * 4096, "more than 50 collections in one another"),
        ("".join(f"k{number}: 1\n" for number in range(90_000)), "more than 5000 keys and values"),
        ("[" + "1," * 400_000 + "]", "more than 5000 keys and values"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}\n", "2:17: the key 'c' stands here twice"),
        ("metadata: {}\nmetadata: {}\n", "2:1: the key 'metadata' stands here twice"),
        ("a: \x01", "not YAML"),
    ],
)
def test_hostile_yaml_is_refused_by_its_size_and_shape(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_agent("agent.yaml", text)
    assert named in str(refused.value)
    assert len(refused.value.mistakes) == 1


def test_yaml_at_the_limits_is_read() -> None:
    check_yaml("a.yaml", "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    check_yaml("a.yaml", "[" + "1," * (MAX_VALUES - 1) + "]")


def test_file_with_many_mistakes_names_the_first_of_them() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_agent("agent.yaml", "".join(f"k{number}: 1\n" for number in range(1_000)))
    assert len(refused.value.mistakes) == 20
