"""The `flotilla` command line as people use it: two days on one laptop, and what goes wrong said in one line."""

import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from command_line.commands import COMMANDS, main
from command_line.local import load_command
from local_backends.server import free_port

ROOT = Path(__file__).parents[4]
READY_SECONDS = 90.0
FAULTY_AGENTS = {
    "long-winded": "{kind: length, after: 2}",
    "busy-once": "{kind: rate_limit, retry_after: 0, times: 1}",
}
AGENT = """
apiVersion: flotilla/v1
kind: Agent
metadata: {{name: {name}}}
spec: {{model: {{provider: scripted, name: {name}}}}}
"""
SCRIPT = """
apiVersion: flotilla/v1
kind: ModelScript
metadata: {{name: {name}}}
spec: {{default: {{text: One two three., fault: {fault}}}}}
"""


@dataclass(frozen=True, slots=True)
class Laptop:
    """Where a fleet lives between two starts."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "FLOTILLA_HOME": str(self.home),
            "FLOTILLA_PORT": str(self.port),
            "FLOTILLA_AGENT_CONFIGS": str(self.home.with_name("agent-configs")),
        }

    def client(self) -> httpx.Client:
        key = (self.home / "dev-key").read_text()
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    @contextmanager
    def up(self) -> Iterator["Up"]:
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **self.settings}
        command = [sys.executable, "-m", "command_line", "up"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            started = Up(process, [])
            try:
                started.wait_for("ready")
                yield started
            finally:
                if process.poll() is None:
                    process.kill()


@dataclass
class Up:
    """A `flotilla up` that runs."""

    process: subprocess.Popen[str]
    said: list[str]

    def wait_for(self, word: str) -> None:
        assert self.process.stderr is not None
        began = monotonic()
        for line in self.process.stderr:
            self.said.append(line)
            if line.strip().endswith(word):
                return
            assert monotonic() - began < READY_SECONDS, self.said
        raise AssertionError(f"it ended without saying {word}: {''.join(self.said)}")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> "Stopped":
        children = self.children()
        began = monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr is not None
        rest = self.process.stderr.read()
        status = self.process.wait(20)
        return Stopped(status, monotonic() - began, len(children), [one for one in children if alive(one)], rest)


@dataclass(frozen=True, slots=True)
class Stopped:
    """How it ended."""

    status: int
    seconds: float
    had: int
    left: Sequence[psutil.Process]
    said: str


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True, slots=True)
class Yesterday:
    laptop: Laptop
    said: str
    asked: dict[str, str]
    stopped: Stopped


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Yesterday:
    """A first day: started, asked, and stopped with Ctrl-C."""
    laptop = Laptop(tmp_path_factory.mktemp("laptop") / ".flotilla", free_port())
    configs = shutil.copytree(ROOT / "agent-configs", laptop.home.with_name("agent-configs"))
    for name, fault in FAULTY_AGENTS.items():
        (configs / "agents" / f"{name}-v1.yaml").write_text(AGENT.format(name=name))
        (configs / "scripts" / f"{name}.yaml").write_text(SCRIPT.format(name=name, fault=fault))
    with laptop.up() as up, laptop.client() as client:
        body = {"content": "Hello"}
        asked = client.post("/api/v1/requests", json=body, headers={"Prefer": "wait=30"}).json()
        stopped = up.interrupt()
        return Yesterday(laptop, "".join(up.said), asked, stopped)


@pytest.fixture(scope="module")
def laptop(yesterday: Yesterday) -> Iterator[Laptop]:
    """The second day on the same home."""
    with yesterday.laptop.up():
        yield yesterday.laptop


def flotilla(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], *words: str) -> int:
    """Run the command line in this process, and return its exit status."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["flotilla", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    if isinstance(ended.value.code, str):
        sys.stderr.write(f"{ended.value.code}\n")  # as the interpreter does
        return 1
    return int(ended.value.code or 0)


def test_ctrl_c_ends_everything_cleanly_within_ten_seconds(yesterday: Yesterday) -> None:
    stopped = yesterday.stopped
    assert stopped.status == 0, stopped.said
    assert stopped.seconds < 10
    assert stopped.had >= 1
    assert stopped.left == []
    assert "Traceback" not in stopped.said
    assert stopped.said.rstrip().endswith("stopped")


def test_start_tells_how_to_get_in(yesterday: Yesterday) -> None:
    laptop = yesterday.laptop
    key = (laptop.home / "dev-key").read_text()
    assert f"API key    {key}" in yesterday.said
    assert f"{laptop.url}/#code=" in yesterday.said
    assert "Traceback" not in yesterday.said
    assert yesterday.asked["status"] == "completed"


def test_state_is_for_its_owner_alone(yesterday: Yesterday) -> None:
    home = yesterday.laptop.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "dev-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700


def test_second_start_finds_yesterdays_conversation(yesterday: Yesterday, laptop: Laptop) -> None:
    with laptop.client() as client:
        session = yesterday.asked["session_id"]
        messages = client.get(f"/api/v1/sessions/{session}/messages").json()["messages"]
        assert [one["role"] for one in messages] == ["user", "assistant"]
        assert messages[0]["content"] == "Hello"
        again = client.get(f"/api/v1/requests/{yesterday.asked['request_id']}")
        assert again.json() == yesterday.asked
        body = {"content": "Hello again", "session_id": session}
        assert client.post("/api/v1/requests", json=body).status_code == 202


def test_fleet_listens_on_loopback_alone(laptop: Laptop) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == laptop.port
    }
    assert listening == {"127.0.0.1"}


def test_ask_prints_the_answer_and_as_json_the_whole_result(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flotilla(monkeypatch, laptop.settings, "ask", "--json", "What is 6*7?") == 0
    view = json.loads(capsys.readouterr().out)
    assert view["status"] == "completed"
    session = view["session_id"]
    assert flotilla(monkeypatch, laptop.settings, "ask", "--session", session, "What is 6*7?") == 0
    printed = capsys.readouterr()
    assert printed.out.strip().endswith(view["response"]["content"].strip())
    assert printed.err == "· calculator\n", "talk goes to stderr"
    with laptop.client() as client:
        assert len(client.get(f"/api/v1/sessions/{session}/messages").json()["messages"]) == 4


@pytest.mark.parametrize(
    ("agent", "answer", "note"),
    [
        ("long-winded", "One two", "The answer was cut at the model's length limit."),
        ("busy-once", "One two three.", "the model is asked again"),
    ],
)
def test_cut_answer_and_repeated_model_call_are_noted_beside_the_answer(
    laptop: Laptop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    agent: str,
    answer: str,
    note: str,
) -> None:
    assert flotilla(monkeypatch, laptop.settings, "ask", "--agent", agent, "Count.") == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == answer
    assert note in only_line(printed.err)


def test_link_signs_a_browser_in(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"http://127.0.0.1:{laptop.port}"
    for words, url in ((("link",), laptop.url), (("link", "--server", f"{base}/"), base)):
        assert flotilla(monkeypatch, laptop.settings, *words) == 0
        link = capsys.readouterr().out.strip()
        assert link.startswith(f"{url}/#code=")
        with httpx.Client(base_url=url, headers={"Origin": url}) as browser:
            assert browser.post("/auth/link", json={"code": link.partition("=")[2]}).status_code == 204
            assert browser.get("/auth/me").json()["subject"] == "developer"


def only_line(printed: str) -> str:
    [line] = printed.strip().splitlines()
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ask", "--session", "01a1fe6e-e144-7457-9c2f-1d1ddcaa269d", "hi"), "404 .*session 01a1fe6e"),
        (("ask", "--server", "http://127.0.0.1:1", "hi"), "127.0.0.1:1|not|cannot"),
        (("migrate",), "in use by process"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    laptop: Laptop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    words: Sequence[str],
    told: str,
) -> None:
    assert flotilla(monkeypatch, laptop.settings, *words) == 1
    assert re.search(told, only_line(capsys.readouterr().err))


HOSTILE = "one\u2028two\u0085three \x1b]0;owned\x07\x1b[2J"
"""The default rule of the scripted model repeats the question."""


def test_answer_is_printed_exactly_where_stdout_is_a_pipe(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flotilla(monkeypatch, laptop.settings, "ask", HOSTILE) == 0
    stored = HOSTILE.replace("\x1b", "\ufffd").replace("\x07", "\ufffd")  # as agent-service keeps an answer
    assert f"> {stored}" in capsys.readouterr().out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_answer_on_a_terminal_does_not_command_it(laptop: Laptop, options: tuple[str, ...]) -> None:
    environment = {"PATH": os.environ["PATH"], **laptop.settings}
    command = [sys.executable, "-m", "command_line", "ask", *options, HOSTILE]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment, stdout=theirs, cwd=ROOT) as process:
        os.close(theirs)
        shown = b"".join(until_closed(ours)).decode()
        os.close(ours)
    assert process.returncode == 0
    assert "two" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\x85"}


def until_closed(terminal: int) -> Iterator[bytes]:
    with suppress(OSError):  # Linux says EIO once nobody has the other end any more
        while data := os.read(terminal, 4096):
            yield data


def test_wrong_key_is_said_in_one_line(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {**laptop.settings, "FLOTILLA_AUTH_DEV_KEY": "not-the-key-of-this-one"}
    assert flotilla(monkeypatch, wrong, "ask", "hi") == 1
    line = only_line(capsys.readouterr().err)
    assert "set FLOTILLA_AUTH_DEV_KEY" in line
    assert "not-the-key" not in line


def test_agent_that_is_not_there_is_an_answer_with_status_one(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flotilla(monkeypatch, laptop.settings, "ask", "--json", "--agent", "nobody", "hi") == 1
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "unknown_agent"


def test_port_that_is_taken_says_what_to_do(laptop: Laptop, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **laptop.settings}
    environment["FLOTILLA_HOME"] = str(tmp_path / "other")
    command = [sys.executable, "-m", "command_line", "up"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert f"port {laptop.port}" in line
    assert "set FLOTILLA_PORT to another port" in line
    assert not (tmp_path / "other").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("settings", "status", "told"),
    [
        ({"FLOTILLA_PORT": "80800"}, 2, r"FLOTILLA_PORT: .*65535"),
        ({"FLOTILLA_PORT": "x"}, 2, "FLOTILLA_PORT: .*integer"),
        ({"FLOTILLA_AUTH_DEV_KEY": "short"}, 1, "FLOTILLA_AUTH_DEV_KEY has 5 characters"),
        ({"FLOTILLA_HOME": "/dev/null/x"}, 1, "Set FLOTILLA_HOME to a folder that you may write"),
    ],
)
@pytest.mark.parametrize("words", [("up",), ("ask", "hi"), ("link",)])
def test_setting_that_is_wrong_is_named_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    words: Sequence[str],
    settings: dict[str, str],
    status: int,
    told: str,
) -> None:
    given = {"FLOTILLA_HOME": str(tmp_path / "home"), "FLOTILLA_PORT": str(free_port()), **settings}
    assert flotilla(monkeypatch, given, *words) == status
    assert re.search(told, only_line(capsys.readouterr().err))


def test_log_level_that_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flotilla(monkeypatch, {"FLOTILLA_HOME": str(tmp_path), "FLOTILLA_LOG_LEVEL": "loud"}, "up") == 2
    assert re.search(r"FLOTILLA_LOG_LEVEL: .*debug\|info", only_line(capsys.readouterr().err))


def test_two_wrong_settings_are_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"FLOTILLA_PORT": "0", "FLOTILLA_LOG_LEVEL": "x", "FLOTILLA_HOME": str(tmp_path)}
    assert flotilla(monkeypatch, wrong, "up") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_agent_file_that_is_wrong_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = tmp_path / "configs" / "agents"
    agents.mkdir(parents=True)
    (agents / "assistant-v1.yaml").write_text("apiVersion: flotilla/v1\nkind: [oops]\n")
    settings = {
        "FLOTILLA_HOME": str(tmp_path / "home"),
        "FLOTILLA_PORT": str(free_port()),
        "FLOTILLA_AGENT_CONFIGS": str(tmp_path / "configs"),
    }
    before = set(psutil.Process().children())
    assert flotilla(monkeypatch, settings, "up") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(r"assistant-v1\.yaml:2:\d+: kind: ", said)
    assert not [child for child in set(psutil.Process().children()) - before if alive(child)]


def test_migrate_brings_a_database_up_to_date(
    new_database: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(new_database)
    settings = {"FLOTILLA_DATABASE_URL": str(new_database())}
    for _ in range(2):
        assert flotilla(monkeypatch, settings, "migrate", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"schemas": ["agent_service", "api_gateway", "request_manager"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ask", ""), "the question is empty; expected some text"),
        (("ask", " \n"), "the question is empty; expected some text"),
        (("ask", "--session", "x", "hi"), "'x' is not a valid UUID"),
        (("up", "--replicas", "agent-service=2"), "add --processes, or leave --replicas out"),
        (("up", "--processes", "--replicas", "agent-service=17"), "with N from 1 to 16, and got 'agent-service=17'"),
        (("credentials", "x"), "Missing option '--database'"),
        (("asK",), "No such command 'asK'"),
    ],
)
def test_wrong_use_is_told_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, words: Sequence[str], told: str
) -> None:
    assert flotilla(monkeypatch, {}, *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err


@pytest.mark.parametrize("server", ["localhost:8080", "ftp://localhost", "http://", "http://localhost:x"])
def test_server_that_is_no_url_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, server: str
) -> None:
    assert flotilla(monkeypatch, {"FLOTILLA_HOME": str(tmp_path)}, "link", "--server", server) == 1
    assert only_line(capsys.readouterr().err).startswith("--server: expected a base URL such as http://localhost:8080")


def test_list_of_commands_is_what_the_commands_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flotilla(monkeypatch, {"COLUMNS": "120"}, "--help") == 0
    listed = capsys.readouterr().out
    for name, sentence in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}$", listed, re.MULTILINE)
        assert (load_command(name).help or "").partition("\n")[0] == sentence
        assert flotilla(monkeypatch, {}, name, "--help") == 0
        assert sentence in capsys.readouterr().out


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("command_line.commands", {"http.client", "json"}),
        ("command_line.ask", {"fleet.app"}),
        ("command_line.link", {"fleet.app"}),
    ],
)
def test_short_commands_import_little(imported: str, unwanted: set[str]) -> None:
    heavy = unwanted | {"asyncio", "httpx", "opentelemetry", "pydantic", "rich"}
    code = f"import sys, {imported}; print(*sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
