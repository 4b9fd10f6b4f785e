"""The form of a scenario file: what is given, what is done, and what has to be so then, as steps over HTTP.

`runner` plays one against a fleet. A step does exactly one thing: `call`, `stream`, `resume` or `cut_everywhere`. Texts
may hold `${name}`: a value that an earlier step kept, one of the file's own `values`, or `${origin}`, a gateway's.

    title: What somebody can rely on.
    values: {long: {repeat: a, times: 9}}
    given: [{call: POST /api/v1/sessions, json: {}, keep: {session: json /session_id}}]
    when: [{stream: POST /chat, json: {content: Hello}, until: {type: TEXT_MESSAGE_START}, keep: {run: header …}}]
    then: [{resume: "${run}", expect: {answer: Hello}}]

How JSON is compared (`matching`): an object has at least the members that are expected, null stands for "not there",
a list is as long as expected, and a text that begins with `re:` is a regular expression for the whole value.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from shared_models.agents import ConfigModel

FOLDER = Path(__file__).parent
_KEEP = re.compile(r"(header|json) (\S+)(?: ~ (.+))?")

Target = Annotated[str, StringConstraints(pattern=r"^(GET|POST|PUT|PATCH|DELETE) (/|\$\{)\S*$")]
Seconds = Annotated[float, Field(gt=0, le=15)]


def _keeps(value: str) -> str:
    if not _KEEP.fullmatch(value):
        msg = "expected `header <name>` or `json <pointer>`, with ` ~ <regular expression with one group>` if need be"
        raise ValueError(msg)
    return value


class Took(ConfigModel):
    """How long a call may take, in seconds."""

    least: Annotated[float, Field(ge=0)] = 0
    most: Seconds


class Expected(ConfigModel):
    """What an answer or a stream has to be like.

    Attributes:
        status: of the answer; a stream's is 200 unless this says otherwise.
        headers: their whole values; null for one that must not be there.
        body: its JSON; for an error, problem+json with all its members is expected besides.
        empty: there is no body at all.
        took: how long it took.
        frames: AG-UI events that come in this order, with any others between them.
        answer: what the stream's text is, as a client shows it.
    """

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    headers: dict[str, str | None] = Field(default_factory=dict)
    body: JsonValue = Field(default=None, alias="json")
    empty: bool = False
    took: Took | None = None
    frames: tuple[dict[str, JsonValue], ...] = ()
    answer: str | None = None


class Step(ConfigModel):
    """One thing that a client does.

    Attributes:
        call: a request and its whole answer.
        stream: a request that is answered by a stream, read up to its end or `until`.
        resume: a run's id; goes on where this client left that run's stream, or begins.
        cut_everywhere: a run's id; its stream is read once whole and once from behind each of its frames.
        sender: the developer, nobody (without a key), or a stranger (with a wrong one).
        headers: further ones.
        content: the body as JSON.
        text: instead, the body as it is.
        chunked: the body comes without its length.
        until: leave the stream behind the first frame like this.
        within: do it again and again until all is as expected, for at most so many seconds.
        at_once: do it so many times at the same time; what is kept has to be the same every time.
        expect: what has to be so.
        keep: values for later steps, each `header <name>` or `json <pointer>`.
    """

    call: Target | None = None
    stream: Target | None = None
    resume: str | None = None
    cut_everywhere: str | None = None
    sender: Literal["developer", "nobody", "stranger"] = Field(default="developer", alias="as")
    headers: dict[str, str] = Field(default_factory=dict)
    content: JsonValue = Field(default=None, alias="json")
    text: str | None = None
    chunked: bool = False
    until: dict[str, JsonValue] | None = None
    within: Seconds | None = None
    at_once: Annotated[int, Field(ge=1, le=32)] = 1
    expect: Expected = Expected()
    keep: dict[str, Annotated[str, AfterValidator(_keeps)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        verbs = {name: getattr(self, name) for name in ("call", "stream", "resume", "cut_everywhere")}
        done = [name for name, value in verbs.items() if value is not None]
        if len(done) != 1:
            msg = f"expected exactly one of {', '.join(verbs)}, and got {', '.join(done) or 'none'}"
            raise ValueError(msg)
        streams = done[0] in {"stream", "resume"}
        if not streams and (self.until or self.expect.frames or self.expect.answer is not None):
            msg = f"until, expect.frames and expect.answer are for streams, and this is a {done[0]}"
            raise ValueError(msg)
        if done[0] != "call" and (self.within or self.at_once > 1):
            msg = f"within and at_once are for calls, and this is a {done[0]}"
            raise ValueError(msg)
        return self


class Repeated(ConfigModel):
    """A long value."""

    repeat: str
    times: Annotated[int, Field(ge=1, le=1_000_000)]


class Scenario(ConfigModel):
    """One file.

    Attributes:
        title: what somebody can rely on.
        transport: whether the promise depends on how events travel, so that even a sample plays it on every fleet.
        values: texts for `${name}`.
        given: what has happened before.
        when: what somebody does.
        then: what that has to lead to.
    """

    title: Annotated[str, StringConstraints(min_length=10)]
    transport: bool = False
    values: dict[str, str | Repeated] = Field(default_factory=dict)
    given: tuple[Step, ...] = ()
    when: tuple[Step, ...]
    then: tuple[Step, ...] = ()

    @property
    def texts(self) -> Mapping[str, str]:
        return {
            name: value if isinstance(value, str) else value.repeat * value.times for name, value in self.values.items()
        }

    @property
    def steps(self) -> Mapping[tuple[str, int], Step]:
        """Every step in order, by its place in the file."""
        parts = {"given": self.given, "when": self.when, "then": self.then}
        return {(part, number): step for part, steps in parts.items() for number, step in enumerate(steps)}


def scenario_files(folder: str = "*") -> list[str]:
    """Return the files below this folder, relative to it."""
    found = (path.relative_to(FOLDER) for path in FOLDER.glob(f"{folder}/*.yaml"))
    return sorted(str(path) for path in found if path.parts[0] != "agent-configs")


def source_of(keep: str) -> tuple[str, str, str | None]:
    """Return where a kept value comes from: `header` or `json`, its name or pointer, and a pattern with one group."""
    match = _KEEP.fullmatch(keep)
    assert match is not None, "the model has checked that"
    return match[1], match[2], match[3]
