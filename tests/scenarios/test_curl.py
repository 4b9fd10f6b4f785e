import re
from pathlib import Path

import pytest

from tests.fleets import Fleet
from tests.scenarios.curl import Curl, Printed

JSON = ("--header", "Content-Type: application/json")
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def curl(one_process_fleet: Fleet) -> Curl:
    return Curl(one_process_fleet)


def post(curl: Curl, content: str, *arguments: str, path: str = "/api/v1/requests", leave_after: int = 0) -> Printed:
    return curl(path, *JSON, "--data", f'{{"content": "{content}"}}', *arguments, leave_after=leave_after)


def answer_of(events: list[tuple[str, dict[str, str]]]) -> str:
    return "".join(data["delta"] for _, data in events if data["type"] == "TEXT_MESSAGE_CONTENT")


def check_problem(printed: Printed, status: int, slug: str) -> None:
    assert printed.status == status, printed
    assert printed.headers["content-type"] == "application/problem+json"
    problem = printed.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "trace_id", "errors"}
    assert (problem["type"], problem["status"]) == (f"urn:flotilla:problem:{slug}", status)
    assert re.fullmatch("[0-9a-f]{32}", problem["trace_id"])


def test_who_waits_gets_the_result_with_the_preference_that_was_applied(curl: Curl) -> None:
    printed = post(curl, "Say hello", "--header", "Prefer: wait=10")
    assert printed.status == 200
    assert printed.headers["preference-applied"] == "wait=10"
    assert printed.headers["content-type"] == "application/json"
    view = printed.json()
    assert (view["status"], view["turn"], view["response"]) == ("completed", 1, {"content": "hello"})
    assert {"request_id", "session_id", "agent", "revision", "usage", "created_at", "completed_at"} < set(view)


def test_accepted_work_is_polled_until_there_is_a_result_and_then_is_not_sent_again(curl: Curl) -> None:
    printed = post(curl, "Think before you speak")
    accepted = printed.json()
    assert printed.status == 202
    assert re.fullmatch(f"/api/v1/requests/{UUID}", printed.headers["location"])
    assert printed.headers["location"] == accepted["links"]["self"]
    assert re.fullmatch(UUID, accepted["request_id"])
    assert re.fullmatch(UUID, accepted["session_id"])
    assert accepted["status"] == "accepted"

    early = curl(accepted["links"]["result"])
    assert (early.status, early.headers["retry-after"]) == (202, "1")
    assert early.json()["status"] in {"accepted", "running"}
    late = curl(f"{accepted['links']['result']}?wait=15")
    assert (late.status, late.json()["response"]) == (200, {"content": "Now I know."})
    again = curl(accepted["links"]["result"], "--header", f"If-None-Match: {late.headers['etag']}")
    assert (again.status, again.headers["etag"], again.body) == (304, late.headers["etag"], "")


def test_a_stream_that_curl_left_goes_on_where_it_was(curl: Curl) -> None:
    first = post(curl, "Take your time", path="/chat", leave_after=1200)
    assert first.status == 200
    assert first.headers["content-type"].startswith("text/event-stream")
    assert not first.whole
    run = first.headers["flotilla-execution-id"]
    assert first.events, "something came before curl left"
    rest = curl(f"/chat/{run}", "--header", f"Last-Event-ID: {first.events[-1][0]}")

    events = [*first.events, *rest.events]
    assert [id_ for id_, _ in events] == [f"1-{number}" for number in range(1, len(events))] + ["2-0"]
    assert answer_of(events) == events[-1][1]["result"]["response"]["content"]
    assert curl(f"/chat/{run}").events == events
    assert curl(f"/chat/{run}", "--header", "Last-Event-ID: 2-0").events == []


def test_a_run_is_cancelled(curl: Curl) -> None:
    run = post(curl, "Never come to an end").json()["request_id"]
    asked = curl(f"/api/v1/requests/{run}", "--request", "DELETE")
    assert (asked.status, asked.headers["location"]) == (202, f"/api/v1/requests/{run}/status")
    ended = curl(f"/api/v1/requests/{run}/result?wait=10").json()
    assert (ended["status"], ended["error"]["reason"]) == ("cancelled", "cancelled_by_caller")
    assert curl(f"/chat/{run}").events[-1][1]["type"] == "RUN_ERROR"


def test_a_key_stands_for_one_request(curl: Curl) -> None:
    key = ("--header", "Idempotency-Key: curl-1")
    first, second = post(curl, "Say this", *key), post(curl, "Say this", *key)
    assert (first.status, second.status) == (202, 202)
    assert second.json() == first.json()
    check_problem(post(curl, "Say that", *key), 422, "idempotency-key-reused")


def test_a_list_has_a_link_to_its_next_page(curl: Curl) -> None:
    session = post(curl, "Say one", "--header", "Prefer: wait=10").json()["session_id"]
    for word in ("two", "three"):
        data = f'{{"content": "Say {word}", "session_id": "{session}"}}'
        assert curl("/api/v1/requests", *JSON, "--data", data, "--header", "Prefer: wait=10").status == 200
    first = curl(f"/api/v1/requests?limit=2&session_id={session}")
    link = re.fullmatch(r'<(.+)>; rel="next"', first.headers["link"])
    assert link is not None
    second = curl(link[1])
    assert "link" not in second.headers
    pages = [*first.json()["requests"], *second.json()["requests"]]
    assert [view["response"]["content"] for view in pages] == ["three", "two", "one"]


def test_nobody_gets_in_without_the_key(curl: Curl) -> None:
    for key in (None, "wrong"):
        printed = curl("/api/v1/requests", key=key)
        check_problem(printed, 401, "no-identity")
        assert printed.headers["www-authenticate"].startswith("Bearer")


def test_a_body_that_is_wrong_is_refused_with_a_pointer_to_each_fault(curl: Curl, tmp_path: Path) -> None:
    faulty = curl("/api/v1/requests", *JSON, "--data", '{"content": "Hi", "agent": "?", "metadata": {"a": 1}}')
    check_problem(faulty, 422, "invalid-body")
    assert [set(error) for error in faulty.json()["errors"]] == [{"pointer", "detail"}] * 2
    assert [error["pointer"] for error in faulty.json()["errors"]] == ["/agent", "/metadata/a"]
    check_problem(curl("/api/v1/requests", *JSON, "--data", "{"), 400, "invalid-json")
    check_problem(curl("/api/v1/requests", "--data", "content=Hi"), 415, "unsupported-media-type")
    large = tmp_path / "large.json"
    large.write_text(f'{{"content": "{"a" * 300_000}"}}')
    for chunked in ((), ("--header", "Transfer-Encoding: chunked")):
        printed = curl("/api/v1/requests", *JSON, "--data-binary", f"@{large}", *chunked)
        check_problem(printed, 413, "body-too-large")


def test_a_host_that_is_not_ours_is_not_served(curl: Curl) -> None:
    for host in ("flotilla.example", "localhost", "127.0.0.1:1"):
        check_problem(curl("/api/v1/requests", "--header", f"Host: {host}"), 421, "misdirected")


def test_a_cookie_counts_for_a_change_only_from_our_own_page(curl: Curl) -> None:
    code = curl("/auth/codes", *JSON, "--data", "{}").json()["code"]
    signed_in = curl("/auth/link", *JSON, "--data", f'{{"code": "{code}"}}', key=None)
    assert signed_in.status == 204
    assert "HttpOnly" in signed_in.headers["set-cookie"]
    cookie = ("--cookie", signed_in.headers["set-cookie"].partition(";")[0])
    ask = (*JSON, "--data", '{"content": "Say hello"}')

    check_problem(curl("/api/v1/requests", *ask, *cookie, key=None), 403, "bad-origin")
    elsewhere = ("--header", "Origin: https://elsewhere.example")
    check_problem(curl("/api/v1/requests", *ask, *cookie, *elsewhere, key=None), 403, "bad-origin")
    ours = ("--header", f"Origin: {curl.fleet.urls[0]}")
    assert curl("/api/v1/requests", *ask, *cookie, *ours, key=None).status == 202
    assert curl("/auth/me", *cookie, key=None).json() == {"subject": "developer", "tenant": "default"}
