"""`flotilla ask` against a server that breaks off, refuses and answers nonsense: played over real sockets."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from command_line.asking import AnswerPart, Ended, Question, Restarted, Text, ToolCall, follow_answer
from command_line.remote import RemoteCall, RemoteFleet, call
from shared_clients.errors import Permanent, Transient, Unknown

VIEW = {"request_id": "r", "status": "completed", "response": {"content": "one two"}}
ENDED = {"type": "RUN_FINISHED", "result": VIEW}


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the server; `cut` closes the connection in the middle of the body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    line: str
    last_event_id: str | None
    idempotency_key: str | None
    body: bytes


@dataclass
class Script:
    """The replies that are still to be given, and the calls that came."""

    replies: list[Reply]
    calls: list[Asked] = field(default_factory=list)
    url: str = ""

    @property
    def fleet(self) -> RemoteFleet:
        return RemoteFleet(self.url, "key")


def stream(*frames: tuple[str, object], cut: bool = False, **headers: str) -> Reply:
    body = "".join(f"id: {cursor}\ndata: {json.dumps(frame)}\n\n" for cursor, frame in frames).encode()
    return Reply(body, headers={"Flotilla-Execution-Id": "run-1", **headers}, cut=cut)


@pytest.fixture
def script() -> Iterator[Script]:
    played = Script([])

    class Player(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wanted = (self.headers.get("Last-Event-ID"), self.headers.get("Idempotency-Key"))
            played.calls.append(Asked(f"{self.command} {self.path}", *wanted, body))
            reply = played.replies.pop(0)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.cut))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Player)
    played.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield played
    server.shutdown()
    thread.join()
    server.server_close()


def asked(script: Script, question: str = "Hello") -> list[AnswerPart]:
    return list(follow_answer(script.fleet, Question(question)))


def text(delta: str) -> dict[str, str]:
    return {"type": "TEXT_MESSAGE_CONTENT", "delta": delta}


def test_a_stream_that_is_cut_is_resumed_behind_the_last_whole_frame(script: Script) -> None:
    script.replies = [
        stream(("1-1", text("one ")), cut=True),
        stream(("1-2", {"type": "TOOL_CALL_START", "toolCallName": "clock"}), cut=True),
        stream(("1-3", text("two")), ("2-0", ENDED)),
    ]
    assert asked(script) == [Text("one "), ToolCall("clock"), Text("two"), Ended(VIEW, "completed", None)]
    assert [(one.line, one.last_event_id) for one in script.calls] == [
        ("POST /chat", None),
        ("GET /chat/run-1", "1-1"),
        ("GET /chat/run-1", "1-2"),
    ]


def test_a_stream_that_ends_without_the_answers_end_is_resumed_too(script: Script) -> None:
    script.replies = [stream(("1-1", text("one"))), stream(("2-0", ENDED))]
    assert isinstance(asked(script)[-1], Ended)


def test_a_question_whose_answer_was_lost_is_asked_again_with_the_same_key(script: Script) -> None:
    script.replies = [Reply(b"", 503), stream(("2-0", ENDED))]
    asked(script)
    first, second = script.calls
    assert first == second
    assert first.idempotency_key


def test_frames_that_say_what_is_void_or_whole_are_shown_so(script: Script) -> None:
    frames = [
        ("1-1", text("wrong")),
        ("2-1", {"type": "CUSTOM", "name": "reset", "value": {}}),
        ("2-2", {"type": "CUSTOM", "name": "resync", "value": {"content": "right"}}),
        ("2-3", {"type": "STATE_DELTA", "delta": []}),
        ("2-4", {"type": "TEXT_MESSAGE_END"}),
        ("3-0", {"type": "RUN_ERROR", "message": "No answer.", "rawEvent": {"status": "failed"}}),
    ]
    script.replies = [stream(*frames)]
    ended = Ended({"status": "failed"}, "failed", "No answer.")
    assert asked(script) == [Text("wrong"), Restarted(), Text("\nright"), Text("\n"), ended]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(b"data: nonsense\n\n", headers={"Flotilla-Execution-Id": "1"}), "expected AG-UI events in JSON"),
        (Reply(b"<html>"), "it is not Flotilla's gateway"),
        (stream(("2-0", {"type": "RUN_FINISHED"})), "expected the request in the last frame"),
        (Reply(b'{"title": "No", "detail": "such agent"}', 404), r"POST .*/chat: 404 No: such agent$"),
        (Reply(b"<html>", 302), "302 Found"),
        (Reply(b"", 401), "set FLOTILLA_AUTH_DEV_KEY to the API key"),
    ],
)
def test_an_answer_that_cannot_be_used_is_told(script: Script, reply: Reply, told: str) -> None:
    script.replies = [reply]
    with pytest.raises(Permanent, match=told):
        asked(script)


def test_a_call_is_made_again_when_it_was_put_off(script: Script) -> None:
    script.replies = [Reply(b"", 503, {"Retry-After": "0"}), Reply(b"", 429, {"Retry-After": "0"}), Reply(b"done")]
    assert call(script.fleet, RemoteCall("POST", "/x", b"{}")) == b"done"


def test_a_call_that_may_have_happened_is_not_made_again(script: Script) -> None:
    script.replies = [Reply(b"", 500), Reply(b"half", cut=True)]
    for _ in range(2):
        with pytest.raises(Unknown):
            call(script.fleet, RemoteCall("POST", "/x", b"{}"))
    assert len(script.calls) == 2


def test_nobody_there_is_told_with_the_address() -> None:
    fleet = RemoteFleet("http://127.0.0.1:1", "key")
    with pytest.raises(Transient, match=r"POST http://127.0.0.1:1/x: cannot connect .*is the fleet running there"):
        call(fleet, RemoteCall("POST", "/x"), deadline=0.0)
