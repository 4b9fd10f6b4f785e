"""`agent-configs/`: an error names the place of the mistake, and the shipped files hold the promised demonstration."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_ai.messages import ModelMessage
from structlog.testing import capture_logs

from agent_service.adapters.agent_files import Configuration, load_configuration
from agent_service.adapters.agents import read_agents
from agent_service.adapters.providers import Providers, ProviderSettings
from agent_service.adapters.scripted import ScriptInput, match_groups
from agent_service.adapters.tools import Toolbox
from agent_service.domain.history import user_turn
from agent_service.settings import ProviderKeys
from agent_service.usecases.run_agent import run_agent
from shared_clients.errors import Permanent
from shared_models.agents import ConfigError, ModelRef, parse_agent
from shared_models.ids import new_id
from tests.simulators.openai import BAD_KEY, Simulator
from tests.simulators.runs import FrameLog, MemoryJournal

SHIPPED = Path(__file__).parents[4] / "agent-configs"
TOOLS = Toolbox()

AGENT = """\
apiVersion: flotilla/v1
kind: Agent
metadata:
  name: assistant
spec:
  model: {provider: scripted, name: demo}
  tools:
    - calculator
"""
OTHER = AGENT.replace("name: assistant", "name: other")
SCRIPT = """\
apiVersion: flotilla/v1
kind: ModelScript
metadata: {name: demo}
spec: {default: {text: Hello.}}
"""


def shipped() -> Configuration:
    """Return the shipped files as they are read without a key."""
    return load_configuration(SHIPPED, tools=TOOLS.names).with_models(None)


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"scripts/demo.yaml": SCRIPT, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_agents_and_scripts_are_read_with_their_revisions(tmp_path: Path) -> None:
    changed = AGENT.replace("calculator", "current-time")
    folder = written(tmp_path, {"agents/assistant-v2.yaml": AGENT, "agents/assistant-v10.yaml": changed})

    loaded = load_configuration(folder, tools=TOOLS.names)

    current = loaded.agents.find("assistant")
    assert current.spec.tools == ("current-time",)
    assert loaded.agents.find(None) is current
    assert [agent.spec.tools[0] for agent in loaded.agents] == ["calculator", "current-time"]
    assert set(loaded.scripts) == {"demo"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "assistant-v1.yaml",
            AGENT.replace("calculator", "rocket"),
            "v1.yaml:8:7: spec.tools.0: there is no tool rocket",
        ),
        ("assistant-v1.yaml", AGENT.replace("demo", "gone"), "v1.yaml:6:37: spec.model.name: there is no scripts"),
        (
            "assistant-v1.yaml",
            AGENT.replace("scripted", "wizard"),
            "v1.yaml:6:21: spec.model.provider: Input should be",
        ),
        ("helper-v1.yaml", AGENT, "helper-v1.yaml:4:9: metadata.name: expected helper, as the file is called"),
        ("assistant.yaml", AGENT, "assistant.yaml:4:9: metadata.name: expected a file called assistant-v<N>.yaml"),
        ("assistant-v1.yaml", "kind: [", "v1.yaml:1:8: not YAML"),
    ],
)
def test_a_mistake_in_an_agent_names_its_place(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_configuration(written(tmp_path, {f"agents/{name}": text}), tools=TOOLS.names)

    assert says in str(refused.value)


def test_a_script_is_called_as_its_file(tmp_path: Path) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": AGENT, "scripts/other.yaml": SCRIPT})

    with pytest.raises(ConfigError, match=r"other.yaml:3:18: metadata.name: expected other, as the file is called"):
        load_configuration(folder, tools=TOOLS.names)


def test_missing_folder_and_binary_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": expected a folder with agents/\*.yaml .* set FLOTILLA_AGENT_CONFIGS"):
        load_configuration(tmp_path, tools=TOOLS.names)
    (written(tmp_path, {"agents/assistant-v1.yaml": AGENT}) / "scripts" / "demo.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"demo.yaml:1:1: byte 6 is not UTF-8; save the file as UTF-8"):
        load_configuration(tmp_path, tools=TOOLS.names)


def test_a_folder_without_the_default_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"agents: no file defines the agent assistant.* FLOTILLA_DEFAULT_AGENT to one of: other"
    ):
        load_configuration(written(tmp_path, {"agents/other-v1.yaml": OTHER}), tools=TOOLS.names)


def test_an_agent_whose_provider_has_no_key_says_what_to_set(tmp_path: Path) -> None:
    agent = AGENT.replace("provider: scripted", "provider: openai")
    folder = written(tmp_path, {"agents/assistant-v1.yaml": agent})

    with pytest.raises(
        ConfigError, match=r"v1.yaml:6:21: spec.model.provider: .* set OPENAI_API_KEY, or OPENAI_BASE_URL"
    ):
        load_configuration(folder, tools=TOOLS.names)

    assert load_configuration(folder, tools=TOOLS.names, providers={"openai"}).agents.default == "assistant"


DEFAULT_AGENT = AGENT.replace("{provider: scripted, name: demo}", "default")


@pytest.mark.parametrize(("name", "script"), [("demo", "demo"), ("other", "demo")])
def test_default_model_without_a_key_is_the_agents_script_or_the_default_agents(
    tmp_path: Path, name: str, script: str
) -> None:
    agents = {
        f"agents/{one}-v1.yaml": DEFAULT_AGENT.replace("name: assistant", f"name: {one}") for one in {name, "demo"}
    }
    loaded = load_configuration(written(tmp_path, agents), tools=TOOLS.names, default_agent="demo").with_models(None)
    assert loaded.agents.find(name).spec.model == ModelRef(provider="scripted", name=script)


async def test_default_model_without_a_key_and_without_a_script_says_what_to_set(tmp_path: Path) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    with pytest.raises(Permanent, match=r"v1.yaml: model: .* no scripts/assistant.yaml: set OPENAI_API_KEY, .*script$"):
        await read_agents(folder, "assistant", ProviderSettings())


async def test_default_model_with_a_key_is_openais_and_another_revision(tmp_path: Path) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    loaded = await read_agents(folder, "assistant", ProviderSettings(SecretStr("sk-test")))
    (file,) = loaded.agents.files
    assert file.agent.spec.model == ModelRef(provider="openai", name="gpt-5-mini")
    assert file.agent.revision != file.digest == parse_agent("assistant-v1.yaml", DEFAULT_AGENT).revision


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [(["nomic-embed-text", "qwen3:8b", "llama4"], "qwen3:8b"), (["qwen3:8b", "gpt-5-mini"], "gpt-5-mini")],
)
async def test_default_model_of_a_local_server_is_one_that_it_lists(
    tmp_path: Path, listed: list[str], chosen: str
) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    async with Simulator(models=listed) as server:
        loaded = await read_agents(folder, "assistant", ProviderSettings(None, server.url))
    assert loaded.agents.find(None).spec.model == ModelRef(provider="openai", name=chosen)


@pytest.mark.parametrize("listed", [[], ["nomic-embed-text"]])
async def test_local_server_without_a_model_says_what_to_do(tmp_path: Path, listed: list[str]) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    async with Simulator(models=listed) as server:
        with pytest.raises(Permanent, match="lists no model that answers; load one there, or name a model"):
            await read_agents(folder, "assistant", ProviderSettings(None, server.url))


async def test_local_server_that_is_away_at_the_start_is_asked_for_a_model_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    with capture_logs() as logs:
        loaded = await read_agents(folder, "assistant", ProviderSettings(None, "http://127.0.0.1:9/v1"))
    assert loaded.agents.find(None).spec.model == ModelRef(provider="openai", name="gpt-5-mini")
    [warning] = [entry for entry in logs if entry["event"] == "model_server_away"]
    assert "http://127.0.0.1:9/v1/models: cannot connect" in warning["error"]


async def test_local_server_that_refuses_the_key_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": DEFAULT_AGENT})
    async with Simulator() as server:
        with pytest.raises(Permanent, match=r"/v1/models: 401 .*correct the address or the key") as refused:
            await read_agents(folder, "assistant", ProviderSettings(SecretStr(BAD_KEY), server.url))
    assert BAD_KEY not in str(refused.value)


def test_word_that_is_no_model_is_refused_with_what_is(tmp_path: Path) -> None:
    agent = AGENT.replace("{provider: scripted, name: demo}", "gpt-5-mini")
    with pytest.raises(ConfigError, match=r"v1.yaml:6:10: spec.model: .*expected default, or a mapping such as"):
        load_configuration(written(tmp_path, {"agents/assistant-v1.yaml": agent}), tools=TOOLS.names)


def test_yml_is_read_and_other_files_are_named_as_ignored(tmp_path: Path) -> None:
    others = {"agents/other-v1.json": "{}", "agents/README.md": "x", "scripts/.demo.yaml.swp": "x"}
    folder = written(tmp_path, {"agents/assistant-v1.yml": AGENT, **others})
    loaded = load_configuration(folder, tools=TOOLS.names)
    assert loaded.agents.find(None).spec.tools == ("calculator",)
    assert loaded.ignored == (folder / "agents" / "other-v1.json",)


@pytest.mark.parametrize(
    ("first", "second"),
    [("agents/assistant-v1.yaml", "agents/assistant-v1.yml"), ("scripts/demo.yaml", "scripts/demo.yml")],
)
def test_two_files_that_define_the_same_are_refused(tmp_path: Path, first: str, second: str) -> None:
    text = AGENT if first.startswith("agents") else SCRIPT
    folder = written(tmp_path, {"agents/assistant-v1.yaml": AGENT, first: text, second: text})
    with pytest.raises(ConfigError, match=rf"{second}: {Path(first).name} defines the same; remove one"):
        load_configuration(folder, tools=TOOLS.names)


@pytest.mark.parametrize("kind", ["folder", "broken link"])
def test_what_is_no_file_among_the_files_is_named(tmp_path: Path, kind: str) -> None:
    folder = written(tmp_path, {"agents/assistant-v1.yaml": AGENT})
    path = folder / "agents" / "old-v1.yaml"
    path.mkdir() if kind == "folder" else path.symlink_to("nowhere")
    with pytest.raises(
        ConfigError, match=r"old-v1.yaml: (this is a folder, and a file was expected|it cannot be read)"
    ):
        load_configuration(folder, tools=TOOLS.names)


@pytest.mark.parametrize(
    "text",
    ["a: \x07", "kind: 2026-99-99", f"kind: {'9' * 5000}", "? [a]\n: b", "kind: !!python/name:os.system", "[" * 2000],
)
def test_no_text_in_a_file_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"assistant-v1.yaml:\d+:\d+: "):
        load_configuration(written(tmp_path, {"agents/assistant-v1.yaml": text}), tools=TOOLS.names)


@pytest.mark.parametrize("url", ["localhost:11434/v1", "api.openai.com", "ftp://host/v1", "http://", "https:///v1"])
def test_an_address_that_http_cannot_reach_is_refused_at_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValidationError, match=r"openai_base_url\n.*begins with http:// or https://"):
        ProviderKeys()


def test_white_space_around_a_key_and_an_address_is_no_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", " http://localhost:1/v1\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test\n")
    keys = ProviderKeys()
    assert keys.openai_base_url == "http://localhost:1/v1"
    assert keys.openai_api_key == SecretStr("sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert ProviderKeys().model_dump() == {"openai_api_key": None, "openai_base_url": None}


def test_a_key_that_fits_no_header_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test\nmore\u2028")
    with pytest.raises(ValidationError, match="printable ASCII") as refused:
        ProviderKeys()
    assert "sk-test" not in str(refused.value)


def test_a_dialect_says_what_a_server_knows_and_never_touches_the_question(tmp_path: Path) -> None:
    openai = (
        "{provider: openai, name: m, dialect: {rename: {max_completion_tokens: max_tokens}, omit: [stream_options]}}"
    )
    agent = AGENT.replace("{provider: scripted, name: demo}", openai)
    folder = written(tmp_path, {"agents/assistant-v1.yaml": agent})
    loaded = load_configuration(folder, tools=TOOLS.names, providers={"openai"})
    assert loaded.agents.find(None).spec.model.dialect.omit == ("stream_options",)

    with pytest.raises(ConfigError, match=r"v1.yaml:6:\d+: spec.model.dialect.omit: .*messages cannot be renamed"):
        load_configuration(
            written(tmp_path, {"agents/assistant-v1.yaml": agent.replace("stream_options", "messages")}),
            tools=TOOLS.names,
        )


def test_an_agent_without_a_dialect_keeps_the_revision_it_had_before_there_were_any() -> None:
    agent = parse_agent("assistant-v1.yaml", AGENT)
    assert "dialect" not in agent.model_dump_json()
    assert agent.revision == "dd5037bfbd27efa3"


async def test_the_shipped_assistant_holds_the_conversation_it_promises() -> None:
    loaded = shipped()
    quick = {
        name: script.model_copy(update={"spec": script.spec.model_copy(update={"token_ms": 0})})
        for name, script in loaded.scripts.items()
    }
    agent = loaded.agents.find(None)
    chain = Providers(ProviderSettings(), quick).chain(agent)
    history: list[ModelMessage] = []
    for said, read in (
        ("Hello!", "Hello! I am the assistant"),
        ("My name is Ada", "Nice to meet you, Ada."),
        ("What is my name?", "Your name is **Ada**"),
        ("What did I say first?", "> Hello!"),
        ("What can you do?", "**Flotilla** runs AI agents"),
        ("What time is it?", "(UTC)**"),
        ("what time is it in Europe/Berlin", "(Europe/Berlin)**"),
        ("What is 12 * (3 + 4)?", "**84**"),
        ("2 ** 10 - 1", "**1023**"),
        ("what is (1+2)*-3 then?", "**-9**"),
        ("On 2026-11-21 it rained", "I am Flotilla's **scripted model**"),
        ("and 1 / 0", "I could not work that out"),
        ("Tell me a story", "The boat that came back"),
        ("Show me a table", "|---|---|---|"),
        ("show me some code", "```sh"),
        ("show me a list", "1. A message"),
        ("Thanks", "You are welcome"),
        ("Colourless green ideas", "I am Flotilla's **scripted model**"),
    ):
        history.append(user_turn(said, new_id()))
        log = FrameLog()
        answered = await run_agent(
            history,
            TOOLS.pick(agent.spec.tools),
            agent.spec.limits,
            models=chain,
            journal=MemoryJournal(),
            frames=log,
        )
        history += answered.messages
        assert read in answered.text, said
        assert log.texts()[-1] == answered.text


@pytest.mark.parametrize(
    "hostile",
    ["(" * 9000, "-" * 9000, "1+" * 4500, "9" * 9000, "1 " * 4500, "1" + ")" * 9000, "time " * 1800, "what " * 1800],
)
def test_no_message_keeps_the_shipped_patterns_busy(hostile: str) -> None:
    rules = load_configuration(SHIPPED, tools=TOOLS.names).scripts["assistant"].spec.rules
    began = time.process_time()

    for rule in rules:
        match_groups(rule.when, ScriptInput((hostile, hostile), rule.when.tool, hostile))

    assert time.process_time() - began < 1.0


async def test_a_script_keeps_its_pace() -> None:
    from_file = shipped()
    agent = from_file.agents.find(None)
    began = time.monotonic()

    reply = (
        await Providers(ProviderSettings(), from_file.scripts)
        .chain(agent)
        .stream_reply([user_turn("thanks", new_id())], (), FrameLog())
    )

    took = time.monotonic() - began
    assert took >= reply.usage.output_tokens * 0.025


def test_no_provider_is_imported_for_agents_that_need_none() -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from agent_service.adapters.agent_files import load_configuration\n"
        "from agent_service.adapters.providers import Providers, ProviderSettings\n"
        "from agent_service.adapters.tools import Toolbox\n"
        "from agent_service.usecases import run_agent\n"
        "loaded = load_configuration(Path(sys.argv[1]), tools=Toolbox().names).with_models(None)\n"
        "Providers(ProviderSettings(), loaded.scripts).chain(loaded.agents.find(None))\n"
        "print(sorted({'openai', 'anthropic', 'google', 'mcp'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", program, str(SHIPPED)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


async def test_production_refuses_an_agent_on_a_scripted_model() -> None:
    with pytest.raises(Permanent, match="agent assistant uses a scripted model, which production refuses"):
        await read_agents(SHIPPED, "assistant", ProviderSettings(), scripted=False)
