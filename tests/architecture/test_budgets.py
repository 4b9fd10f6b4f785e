import textwrap
from dataclasses import replace

import pytest

from tests.architecture.budgets import (
    BUDGETS,
    Allowed,
    Budgets,
    broad_handlers,
    counted_complaints,
    environment_names,
    gate_complaints,
)
from tests.architecture.sources import planted, workspace_sources

REAL = Budgets.read(BUDGETS.read_text())
LONG_BODY = "\n".join(f"    x = {number}" for number in range(60))
METHODS = "\n".join(f"    def m{number}(self) -> None: ..." for number in range(16))


def test_nothing_is_larger_than_its_gate() -> None:
    complaints = gate_complaints(workspace_sources(), REAL)
    assert not complaints, "\n".join(complaints)


def test_counted_exceptions_are_exactly_those_written_down() -> None:
    complaints = counted_complaints(workspace_sources(), REAL)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "module", "complaint"),
    [
        (f"def long() -> None:\n{LONG_BODY}\n", "command_line.asking", "long has 61 lines"),
        ("def wide(a, b, c, d, e, f): ...", "command_line.asking", "6 positional"),
        ("class A:\n    def wide(self, a, b, c, d, /, e, f): ...", "command_line.asking", "6 positional"),
        ("def wide(*, a, b, c, d, e, f, g, h, i): ...", "command_line.asking", "9 keyword-only"),
        (f"class Wide:\n{METHODS}\n", "command_line.asking", "16 methods"),
        ("x = 1\n" * 501, "command_line.asking", "501 lines"),
        ("x = 1\n" * 101, "agent_service.app", "101 lines"),
        ("class Settings:\n" + "\n".join(f"    n{n}: int" for n in range(16)), "fleet.settings", "16 environment"),
    ],
    ids=lambda value: value[:20].split("\n")[0] if isinstance(value, str) else None,
)
def test_a_planted_excess_is_reported(text: str, module: str, complaint: str) -> None:
    assert [line for line in gate_complaints([planted(text, module)], REAL) if complaint in line]


def test_the_docstring_of_a_function_is_free() -> None:
    documented = 'def f() -> None:\n    """' + "\n\n".join("word" for _ in range(60)) + '\n    """\n'
    assert gate_complaints([planted(documented)], REAL) == []


def test_a_large_conftest_is_reported() -> None:
    (found,) = gate_complaints([planted("x = 1\n" * 251, "services/fleet/tests/conftest.py", test=True)], REAL)
    assert "251 lines; at most 250" in found


def test_tests_made_of_mocks_are_reported() -> None:
    mocked = planted("def test_a(monkeypatch):\n    monkeypatch.setattr(x, 'y', Mock())", "tests/test_x.py", test=True)
    (found,) = gate_complaints([mocked], REAL)
    assert "2 Mock and patch in 1 tests" in found


def test_settings_count_with_the_fields_of_their_groups_and_bases() -> None:
    base = planted("class ProcessSettings(BaseSettings):\n    log_level: str\n", "service_process.settings")
    settings = planted(
        textwrap.dedent("""
            class Size(StrEnum):
                SMALL: str

            class Auth(BaseModel):
                dev_key: str
                issuer: str

            class Settings(ProcessSettings):
                model_config: ClassVar[dict] = {}
                auth: Auth
                size: Size
                port: int = int(os.environ["FLOTILLA_PORT"])
        """),
        "fleet.settings",
    )
    assert environment_names([base, settings])["fleet"] == {
        "Auth.dev_key",
        "Auth.issuer",
        "ProcessSettings.log_level",
        "Settings.size",
        "Settings.port",
        "FLOTILLA_PORT",
    }


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("inline_imports", "def f():\n    import os\n"),
        ("inline_imports", "async def f():\n    if True:\n        from os import path\n"),
        ("broad_handlers", "try: ...\nexcept: ...\n"),
        ("broad_handlers", "try: ...\nexcept (OSError, Exception) as e:\n    log(e)\n"),
        ("broad_handlers", "try: ...\nexcept BaseException:\n    if x:\n        raise\n"),
        ("untyped_payloads", "x: dict[str, Any]"),
        ("untyped_payloads", "def f(x: typing.Mapping[str, typing.Any]): ..."),
        ("unbounded_deques", "waiting: deque[int] = deque()"),
        ("unbounded_deques", "waiting = collections.deque[int]([1])"),
        ("loose_tasks", "asyncio.create_task(f())"),
        ("loose_tasks", "asyncio.get_running_loop().create_task(f())"),
        ("wide_gathers", "await_(asyncio.gather(*map(f, everybody)))"),
        (
            "growing_attributes",
            "class A:\n  def __init__(self):\n    self.x = {}\n  def f(self, k):\n    self.x[k] = 1\n",
        ),
        (
            "growing_attributes",
            "class A:\n  def __init__(self):\n    self.x: list[int] = list()\n  def f(self):\n    self.x.append(1)\n",
        ),
        (
            "growing_attributes",
            "class A:\n  def __init__(self):\n    self.x = defaultdict(set)\n  def f(self):\n    self.x[1].add(2)\n",
        ),
    ],
)
def test_a_planted_exception_is_counted(kind: str, text: str) -> None:
    nothing_allowed = replace(REAL, counted={kind: {} for kind in REAL.counted})
    (found,) = counted_complaints([planted(text)], nothing_allowed)
    assert found.startswith(f"[{kind}] agent_service.usecases.planted has 1")


@pytest.mark.parametrize(
    "text",
    [
        "waiting = deque(maxlen=10)",
        "waiting = deque(given, 10)",
        "async def f():\n  async with asyncio.TaskGroup() as group:\n    group.create_task(g())\n",
        "asyncio.gather(f(), g())",
        "class A:\n  def __init__(self):\n    self.x = {}\n  def f(self, k):\n    self.x[k] = self.x.pop(1)\n",
        "class A:\n  def __init__(self): self.x = set()\n  def f(self, t):\n    self.x.add(t)\n    g(self.x.discard)\n",
        "class A:\n def __init__(self): self.x = []\n def f(self): self.x.append(1)\n def g(self): y, self.x = 1, []\n",
    ],
)
def test_what_has_a_bound_is_not_counted(text: str) -> None:
    nothing_allowed = replace(REAL, counted={kind: {} for kind in REAL.counted})
    assert counted_complaints([planted(text)], nothing_allowed) == []


def test_a_handler_that_raises_again_is_no_exception() -> None:
    assert broad_handlers(planted("try: ...\nexcept BaseException:\n    close()\n    raise\n")) == []


def test_a_budget_above_what_is_there_has_to_be_lowered() -> None:
    allowed = {"agent_service.usecases.planted": Allowed(2, "the loop's edge")}
    generous = replace(REAL, counted={kind: {} for kind in REAL.counted} | {"broad_handlers": allowed})
    (found,) = counted_complaints([planted("try: ...\nexcept Exception: ...\n")], generous)
    assert "lower its 2" in found


def test_an_exception_without_a_reason_is_reported() -> None:
    allowed = {"agent_service.usecases.planted": Allowed(1, "")}
    silent = replace(REAL, counted={kind: {} for kind in REAL.counted} | {"broad_handlers": allowed})
    (found,) = counted_complaints([planted("try: ...\nexcept Exception: ...\n")], silent)
    assert "has no reason" in found
