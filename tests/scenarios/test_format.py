import pytest
from pydantic import JsonValue

from shared_models.agents import ConfigError, parse_document
from tests.fleets import Fleet
from tests.scenarios.matching import at_pointer, differences, fill
from tests.scenarios.runner import play
from tests.scenarios.scenario import FOLDER, Scenario, scenario_files

GOOD = """title: Somebody asks who they are
when:
  - call: GET /auth/me
    expect: {status: 200, json: {subject: developer}}
    keep: {who: json /subject}
then:
  - call: GET /auth/me
    expect:
      json: {subject: "${who}"}
"""


@pytest.mark.parametrize("file", scenario_files())
def test_every_file_is_a_scenario(file: str) -> None:
    parse_document(file, (FOLDER / file).read_text(), Scenario)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("GET /auth/me", "FETCH /auth/me", "x.yaml:3:11: when.0.call: String should match pattern"),
        ("call: GET", "cal: GET", "x.yaml:3:10: when.0.cal: Extra inputs are not permitted"),
        ("call: GET /auth/me", "as: nobody", "x.yaml:3:5: when.0: Value error, expected exactly one of call, stream"),
        ("status: 200", "status: 20", "x.yaml:4:22: when.0.expect.status: Input should be greater"),
        ("status: 200", "states: 200", "x.yaml:4:22: when.0.expect.states: Extra inputs are not permitted"),
        ("json /subject", "subject", "x.yaml:5:17: when.0.keep.who: Value error, expected `header <name>`"),
        ("title: Somebody asks who they are\n", "", "x.yaml:1:1: title: Field required"),
        ("developer}}", "developer}", "x.yaml:5:5: not YAML: expected ',' or '}'"),
        (
            "    expect:\n",
            "    until: {type: RUN_STARTED}\n    expect:\n",
            "until, expect.frames and expect.answer are",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_place(old: str, new: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_document("x.yaml", GOOD.replace(old, new, 1), Scenario)
    assert complaint in str(told.value)


async def test_a_step_that_goes_otherwise_is_named_with_its_place(one_process_fleet: Fleet) -> None:
    await play("x.yaml", GOOD, one_process_fleet)
    with pytest.raises(ConfigError) as told:
        await play("x.yaml", GOOD.replace('"${who}"', "somebody else"), one_process_fleet)
    assert str(told.value) == 'x.yaml:7:5: then.0: /subject: expected "somebody else", and got "developer"'
    with pytest.raises(ConfigError) as told:
        await play("x.yaml", GOOD.replace("200", "404"), one_process_fleet)
    assert str(told.value).startswith("x.yaml:3:5: when.0: the status is 200, and 404 was expected")
    with pytest.raises(ConfigError, match="nothing is called whom; known are origin, who"):
        await play("x.yaml", GOOD.replace("${who}", "${whom}"), one_process_fleet)


@pytest.mark.parametrize(
    ("expected", "found", "wrong"),
    [
        ({}, {"a": 1}, []),
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": 1}, {"b": 2}, ["/a: expected 1, and got null"]),
        ({"a": None}, {}, []),
        ({"a": None}, {"a": 0}, ["/a: expected null, and got 0"]),
        ({"a": {"b": "re:x+"}}, {"a": {"b": "xxx"}}, []),
        ({"a": "re:x+"}, {"a": "xxy"}, ["/a: expected to match 'x+', and got \"xxy\""]),
        ({"a": "re:.*"}, {}, ["/a: expected to match '.*', and got null"]),
        ([{"a": 1}, {}], [{"a": 1}, {"a": 2}], []),
        ([{}], [], ["/: expected a list of 1, and got 0 entries"]),
        ([{}], {}, ["/: expected a list of 1, and got {}"]),
        ({"a": {}}, {"a": 1}, ["/a: expected an object, and got 1"]),
        (True, 1, ["/: expected true, and got 1"]),
    ],
)
def test_what_is_expected_is_part_of_what_came(expected: JsonValue, found: JsonValue, wrong: list[str]) -> None:
    assert list(differences(expected, found)) == wrong


def test_values_take_the_place_of_their_names() -> None:
    values: dict[str, JsonValue] = {"n": 7, "who": "Ada"}
    assert fill({"a": ["${n}", "${who} ${n}"], "${who}": None}, values) == {"a": [7, "Ada 7"], "Ada": None}


def test_a_pointer_finds_members_and_entries() -> None:
    assert at_pointer({"a": [{"b": 1}]}, "/a/0/b") == 1
    with pytest.raises(AssertionError, match="there is no /a/1"):
        at_pointer({"a": [1]}, "/a/1")
