"""`agent-configs/`: an error names the place of the mistake, and the shipped files hold the promised demonstration."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_ai.messages import ModelMessage

from agent_service.adapters.agent_files import load_configuration
from agent_service.adapters.agents import open_agents
from agent_service.adapters.providers import MissingKeyError, Providers, ProviderSettings
from agent_service.adapters.scripted import ScriptInput, match_groups
from agent_service.adapters.tools import Toolbox
from agent_service.domain.history import user_turn
from agent_service.errors import UnknownAgent
from agent_service.settings import ProviderKeys
from agent_service.usecases.run_agent import run_agent
from shared_clients.errors import Permanent
from shared_models.agents import ConfigError, parse_agent
from shared_models.ids import new_id
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
    with pytest.raises(ConfigError, match=r"expected a folder with agents/\*.yaml"):
        load_configuration(tmp_path, tools=TOOLS.names)
    (written(tmp_path, {"agents/assistant-v1.yaml": AGENT}) / "scripts" / "demo.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"demo.yaml:1:1: expected UTF-8 text, and byte 6 is not"):
        load_configuration(tmp_path, tools=TOOLS.names)


def test_a_folder_without_the_default_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownAgent, match="'assistant'"):
        load_configuration(written(tmp_path, {"agents/other-v1.yaml": OTHER}), tools=TOOLS.names)


def test_an_agent_whose_provider_has_no_key_says_what_to_set(tmp_path: Path) -> None:
    agent = AGENT.replace("provider: scripted", "provider: openai")
    loaded = load_configuration(written(tmp_path, {"agents/assistant-v1.yaml": agent}), tools=TOOLS.names)

    with pytest.raises(MissingKeyError, match="set OPENAI_API_KEY, or OPENAI_BASE_URL"):
        Providers(ProviderSettings(), loaded.scripts).chain(loaded.agents.find(None))


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
    loaded = load_configuration(written(tmp_path, {"agents/assistant-v1.yaml": agent}), tools=TOOLS.names)
    assert loaded.agents.find(None).spec.model.dialect.omit == ("stream_options",)

    with pytest.raises(ConfigError, match=r"v1.yaml:6:\d+: spec.model.dialect.omit: .*messages is sent always"):
        load_configuration(
            written(tmp_path, {"agents/assistant-v1.yaml": agent.replace("stream_options", "messages")}),
            tools=TOOLS.names,
        )


def test_an_agent_without_a_dialect_keeps_the_revision_it_had_before_there_were_any() -> None:
    agent = parse_agent("assistant-v1.yaml", AGENT)
    assert "dialect" not in agent.model_dump_json()
    assert agent.revision == "dd5037bfbd27efa3"


async def test_the_shipped_assistant_holds_the_conversation_it_promises() -> None:
    loaded = load_configuration(SHIPPED, tools=TOOLS.names)
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
    from_file = load_configuration(SHIPPED, tools=TOOLS.names)
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
        "loaded = load_configuration(Path(sys.argv[1]), tools=Toolbox().names)\n"
        "Providers(ProviderSettings(), loaded.scripts).chain(loaded.agents.find(None))\n"
        "print(sorted({'openai', 'anthropic', 'google', 'mcp'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", program, str(SHIPPED)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


async def test_production_refuses_an_agent_on_a_scripted_model() -> None:
    with pytest.raises(Permanent, match="agent assistant uses a scripted model, which production refuses"):
        async with open_agents(SHIPPED, "assistant", None, None, scripted=False):
            pass
