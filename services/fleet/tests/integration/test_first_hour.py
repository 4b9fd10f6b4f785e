"""The commands of a newcomer's first hour: a conversation, a diagnosis, completion, and all of it quickly."""

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fleet.migrate import migrate_all
from local_backends.server import free_port
from tests.fleets import Background, held
from tests.laptop import AGENT, ROOT, Laptop, flotilla, write_configs
from tests.simulators.openai import Simulator


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    laptop = Laptop(tmp_path_factory.mktemp("laptop") / ".flotilla", free_port())
    write_configs(laptop)
    with laptop.up():
        yield laptop


@pytest.mark.parametrize("questions", ["My name is Ada\nWhat is my name?\n\n"])
def test_chat_is_one_conversation_and_says_how_to_go_on(laptop: Laptop, questions: str) -> None:
    done = laptop.run("chat", input=questions)
    assert done.returncode == 0, done.stderr
    assert "Nice to meet you, Ada." in done.stdout
    assert "Your name is **Ada**" in done.stdout
    assert re.search(r"· to go on: ./flotilla chat --session [0-9a-f-]{36}$", done.stderr.strip())


def test_chat_goes_on_after_a_refusal(laptop: Laptop) -> None:
    done = laptop.run("chat", "--agent", "nobody", input="one\ntwo\n")
    assert done.returncode == 0
    assert done.stderr.count("The agents are: assistant, busy-once, long-winded.") == 2


def test_ctrl_c_in_a_chat_stops_the_answer_and_not_the_chat(laptop: Laptop) -> None:
    with laptop.start("chat") as chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write("Tell me a story\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        chat.send_signal(signal.SIGINT)
        said, notes = chat.communicate("What did I say first?\n", timeout=60)
    assert chat.returncode == 0, notes
    assert "· stopped" in notes
    assert "The first thing I remember" in said
    assert "*The end.*" not in said
    with laptop.client() as client:
        newest = client.get("/api/v1/requests?limit=2").json()["requests"]
    assert [request["status"] for request in newest] == ["completed", "cancelled"]
    assert newest[0]["session_id"] == newest[1]["session_id"]


class Doctor:
    """`flotilla doctor` in this process: its exit status, and what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, settings: dict[str, str], *options: str) -> tuple[int, str]:
        status = flotilla(self._monkeypatch, settings, "doctor", *options)
        printed = self._capsys.readouterr()
        assert printed.err == ""
        return status, printed.out


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(monkeypatch, capsys)


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """The settings of a fleet that does not run, with the shipped agents."""
    return Laptop(tmp_path / "home", free_port()).settings | {"FLOTILLA_AGENT_CONFIGS": str(ROOT / "agent-configs")}


@pytest.fixture
def provider(background: Background) -> Iterator[str]:
    """The address of a simulated provider with OpenAI's API, which has the model `sim`."""
    with held(background, Simulator()) as simulator:
        yield simulator.url


def test_doctor_finds_a_healthy_fleet(laptop: Laptop, doctor: Doctor) -> None:
    status, printed = doctor(laptop.settings, "--json")
    states = {finding["check"]: finding["state"] for finding in json.loads(printed)["findings"]}
    good = dict.fromkeys(("settings", "agents", "fleet", "postgres", "schemas", "clock"), "good")
    assert states == good | dict.fromkeys(("models", "redis", "topics"), "note")
    assert status == 0
    status, printed = doctor({**laptop.settings, "FLOTILLA_AUTH_DEV_KEY": "not-the-key-of-this-one"})
    assert status == 1
    assert re.search(r"BAD  fleet .*refuses our API key\n +→ set FLOTILLA_AUTH_DEV_KEY", printed)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"FLOTILLA_PORT": "x"}, r"BAD  settings   FLOTILLA_PORT: .*\n +→ correct or unset"),
        ({"FLOTILLA_AGENT_CONFIGS": "nowhere"}, r"BAD  agents     nowhere: expected a folder with agents"),
        (
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"},
            r"BAD  models     GET http://127.0.0.1:9/v1/models: cannot connect",
        ),
        ({"FLOTILLA_DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}, r"BAD  postgres   .*\n +→ see whether it runs"),
        ({"FLOTILLA_REDIS_URL": "redis://127.0.0.1:9"}, r"BAD  redis      Redis does not answer"),
        ({"FLOTILLA_REDIS_URL": "http://x"}, r"BAD  redis      expected a Redis address"),
        ({"FLOTILLA_BUS_URL": "kafka://127.0.0.1:9"}, r"BAD  topics     topics cannot be listed"),
    ],
)
def test_doctor_names_what_is_wrong_and_what_to_do(
    doctor: Doctor, nowhere: dict[str, str], settings: dict[str, str], told: str
) -> None:
    status, printed = doctor({**nowhere, **settings})
    assert status == 1
    assert re.search(told, printed), printed
    assert not Path(nowhere["FLOTILLA_HOME"]).exists(), "it makes nothing"


def test_doctor_finds_a_model_that_the_provider_does_not_have(
    doctor: Doctor, nowhere: dict[str, str], provider: str, tmp_path: Path
) -> None:
    status, printed = doctor({**nowhere, "OPENAI_BASE_URL": provider})
    assert f"ok   models     {provider} answers, and has sim\n" in printed, printed
    assert status == 0
    agent = tmp_path / "configs" / "agents" / "assistant-v1.yaml"
    agent.parent.mkdir(parents=True)
    agent.write_text(AGENT.format(name="assistant").replace("scripted", "openai"))
    configs = {"FLOTILLA_AGENT_CONFIGS": str(agent.parents[1]), "OPENAI_BASE_URL": provider}
    status, printed = doctor({**nowhere, **configs})
    assert f"BAD  models     {provider} has no model assistant\n" in printed
    assert status == 1


def test_doctor_without_a_fleet_says_how_to_start_one(doctor: Doctor, nowhere: dict[str, str]) -> None:
    status, printed = doctor(nowhere)
    assert status == 0, printed
    assert re.search(r"note fleet +nothing listens on port \d+\n +→ start a fleet with: make up", printed)
    assert "note postgres   the embedded database does not run" in printed


def test_doctor_finds_a_database_that_is_behind(
    doctor: Doctor, nowhere: dict[str, str], new_database: Callable[[], str]
) -> None:
    url = new_database()
    _, behind = doctor({**nowhere, "FLOTILLA_DATABASE_URL": url})
    assert "BAD  schemas    not up to date: agent_service, api_gateway, request_manager" in behind
    assert "→ bring them up to date with: ./flotilla migrate" in behind
    asyncio.run(migrate_all(url))
    assert "ok   schemas    up to date" in doctor({**nowhere, "FLOTILLA_DATABASE_URL": url})[1]


@pytest.mark.parametrize("typed", ["./flotilla", "flotilla"])
def test_bash_completes_commands(typed: str) -> None:
    script = """
        eval "$(./flotilla completion bash)"
        COMP_WORDS=("$1" do) COMP_CWORD=1
        _flotilla_completion "$1" do "$1"
        echo "${COMPREPLY[@]}"; complete -p flotilla
    """
    path = {"PATH": f"{ROOT}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script, "bash", typed], cwd=ROOT, env=path, capture_output=True, text=True, check=True
    )
    completed, registered = done.stdout.strip().splitlines()
    assert completed == "doctor"
    assert registered.endswith("-F _flotilla_completion flotilla")


@pytest.mark.parametrize(("shell", "part"), [("zsh", "compdef _flotilla_completion flotilla"), ("fish", "complete ")])
def test_other_shells_have_their_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, shell: str, part: str
) -> None:
    assert flotilla(monkeypatch, {}, "completion", shell) == 0
    assert part in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--help",), ("ask", "--help"), ("ask", "--server", "http://127.0.0.1:1", "hi")])
def test_short_commands_take_half_a_second_of_processor_time_at_most(words: Sequence[str]) -> None:
    """The time is the processor's, of the best of three, so a busy machine does not fail it."""
    environment = {"PATH": os.environ["PATH"], "FLOTILLA_AUTH_DEV_KEY": "a-key-that-nobody-has"}
    command = [sys.executable, "-m", "command_line", *words]
    seconds = list[float]()
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=environment, capture_output=True, cwd=ROOT, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) <= 0.5, seconds
