"""What an answer looks like that says why something was not done (RFC 9457)."""

from httpx import Response


def problem(answer: Response, status: int, slug: str) -> str:
    """Check that an answer is this problem, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:flotilla:problem:{slug}"
    assert body["status"] == status
    assert body["trace_id"]
    return str(body["detail"])
