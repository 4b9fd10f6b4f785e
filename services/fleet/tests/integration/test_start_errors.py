"""No error at the start of a service quotes the value of a setting, which may be a secret in the wrong place."""

import json
import subprocess
import sys

import pytest

from fleet.settings import read_settings

MARK = "sk-9vQ2xT7mR4wZ8pLd"
PROGRAM = """
import asyncio, contextlib, importlib, io, itertools, json, os, runpy, sys, traceback
from service_process import serving
from fleet.settings import variables_of
from pydantic_settings import BaseSettings
from service_process.settings import EventSettings, ProductionSettings

service, mark = sys.argv[1:]
unreachable = {
    "FLOTILLA_DATABASE_URL": "postgresql+asyncpg://flotilla@127.0.0.1:1/flotilla",
    "FLOTILLA_BUS_URL": "http://127.0.0.1:1/",
    "FLOTILLA_REDIS_URL": "redis://127.0.0.1:1/0",
    "FLOTILLA_ALLOWED_HOSTS": "localhost:1",
    "FLOTILLA_TRIGGERS": "/nowhere",
    "FLOTILLA_EVENTS_SECRET": "short",
}
wrong = [mark, f"http://[{mark}]/", f"/nowhere/{mark}", json.dumps({"caller": mark}), f"kafka://{mark}:1?{mark}={mark}"]
settings = importlib.import_module(f"{service}.settings")
mains = []
serving.run = mains.append
runpy.run_module(service, run_name="__main__")
(main,) = mains
types = [one for one in vars(settings).values() if isinstance(one, type) and issubclass(one, BaseSettings)]
variables = variables_of(*types, EventSettings, ProductionSettings) - {"FLOTILLA_MODE"}
tried, leaks = 0, []
for mode, variable, value in itertools.product(("dev", "production"), sorted(variables), wrong):
    for name in variables:
        os.environ.pop(name, None)
    os.environ |= {**unreachable, "FLOTILLA_MODE": mode, variable: value}
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        try:
            asyncio.run(asyncio.wait_for(main(), 5))
        except BaseException as error:
            lines = traceback.format_exception(error)
        else:
            lines = ["started"]
    shown = [line for text in lines for line in text.splitlines() if not line.startswith("    ")]
    tried += 1
    if mark in printed.getvalue() + "\\n".join(shown) or "started" in lines:
        leaks.append([mode, variable, value, shown[-1]])
print(json.dumps({"tried": tried, "leaks": leaks}))
"""
"""Starts a service in each mode with each of its settings wrong; source lines of tracebacks do not count."""


@pytest.mark.parametrize("service", ["agent_service", "api_gateway", "mock_eventing", "request_manager"])
def test_no_start_error_quotes_the_value_of_a_setting(service: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, service, MARK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["leaks"] == []
    assert found["tried"] >= 100


@pytest.mark.parametrize("variable", ["FLOTILLA_PORT", "FLOTILLA_LOG_LEVEL"])
def test_no_error_of_a_command_quotes_the_value_of_a_setting(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, MARK)
    with pytest.raises(Exception, match=variable) as failed:
        read_settings()
    assert MARK not in str(failed.value)
