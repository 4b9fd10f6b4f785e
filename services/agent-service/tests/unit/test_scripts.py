from collections.abc import Mapping

import pytest

from agent_service.adapters.scripted import ScriptInput, fill, match_groups
from agent_service.adapters.scripts import ModelScript, When
from shared_models.agents import ConfigError, parse_document

SCRIPT = """\
apiVersion: flotilla/v1
kind: ModelScript
metadata: {name: demo}
spec:
  rules:
    - when: {user: "(?P<name>[a-z]+)"}
      reply:
        text: Hello ${name}
  default:
    text: What?
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[a-z]+", "[a-z+", "demo.yaml:6:20: spec.rules.0.when.user: Value error, not a regular expression"),
        (
            "${name}",
            "${nmae}",
            "demo.yaml:6:7: spec.rules.0: Value error, nothing fills ${nmae}; known",
        ),
        ("What?", "${name}", "demo.yaml:5:3: spec: Value error, nothing fills ${name}"),
        ("text: What?", "repeat: 0", "demo.yaml:10:13: spec.default.repeat: Input should be greater than"),
        ("text: What?", "calls: []", "demo.yaml:10:5: spec.default: Value error, expected a text, calls or a fault"),
        (
            "text: What?",
            "fault: {kind: hang}",
            "demo.yaml:10:19: spec.default.fault.kind: Input should",
        ),
        ("kind: ModelScript", "kind: Script", "demo.yaml:2:7: kind: Input should be 'ModelScript'"),
        ("when: {user", "if: {user", "demo.yaml:6:7: spec.rules.0.when: Field required"),
    ],
)
def test_a_mistake_in_a_script_names_its_place(old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_document("demo.yaml", SCRIPT.replace(old, new), ModelScript)

    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("when", "read", "groups"),
    [
        ({"user": "hi"}, ScriptInput(("well, hi",)), {}),
        ({"user": "hi"}, ScriptInput(("hi", "bye")), None),
        ({"user": "^my (?P<what>\\w+)"}, ScriptInput(("my cat",)), {"what": "cat"}),
        ({"user": "hi"}, ScriptInput(("hi",), tool="clock"), None),
        ({"tool": "clock"}, ScriptInput(("hi",), tool="clock"), {}),
        ({"tool": "clock"}, ScriptInput(("hi",)), None),
        ({"tool": "clock", "result": "(?P<hour>\\d+)h"}, ScriptInput(("hi",), "clock", "it is 7h"), {"hour": "7"}),
        ({"tool": "clock", "result": "never"}, ScriptInput(("hi",), "clock", "it is 7h"), None),
        ({"earlier": "I am (?P<who>\\w+)"}, ScriptInput(("I am Al", "I am Bo", "who?")), {"who": "Bo"}),
        ({"earlier": "I am (?P<who>\\w+)"}, ScriptInput(("who?", "I am Al")), None),
        ({}, ScriptInput(()), {}),
    ],
)
def test_a_rule_applies_when_all_it_asks_for_holds(
    when: Mapping[str, str], read: ScriptInput, groups: dict[str, str] | None
) -> None:
    assert match_groups(When.model_validate(when), read) == groups


def test_text_of_a_person_is_not_read_as_a_placeholder() -> None:
    assert fill("You said ${user}; ${gone}", {"user": "${first}", "first": "secret"}) == "You said ${first}; "


def test_a_long_message_is_matched_at_its_beginning_only() -> None:
    assert match_groups(When.model_validate({"user": "end$"}), ScriptInput(("x" * 5000 + "end",))) is None
