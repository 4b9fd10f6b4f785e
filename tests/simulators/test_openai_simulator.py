"""The simulator as a process of its own, as process tests use it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.processes


@pytest.fixture
def url() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.simulators.openai", "--port", "0"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


def test_a_process_answers_and_keeps_a_log(url: str) -> None:
    log = url.removesuffix("/v1") + "/log"
    behaviours = url.removesuffix("/v1") + "/behaviours/sim"
    body = {"model": "sim", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": "Bearer k"}

    with httpx.Client() as client:
        assert client.post(behaviours, content='[{"status": 503}]').status_code == 204
        assert client.post(behaviours, content='[{"statis": 503}]').status_code == 422
        refused = client.post(f"{url}/chat/completions", json=body, headers=headers)
        answered = client.post(f"{url}/chat/completions", json=body, headers=headers)
        broken = client.post(f"{url}/chat/completions", json={**body, "messages": []}, headers=headers)
        calls = client.get(log).json()
        client.delete(log)
        cleared = client.get(log).json()

    assert refused.status_code == 503
    assert answered.text.endswith("data: [DONE]\n\n")
    assert broken.status_code == 400
    assert [call["outcome"] for call in calls] == ["503", "done", "400"]
    assert cleared == []
