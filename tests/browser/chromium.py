"""The browser that the tests drive: the distribution's Chromium, kept from calling anybody on its own account."""

import os

from playwright.sync_api import Browser, Playwright

EXECUTABLE = os.environ.get("FLOTILLA_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=EXECUTABLE, args=[*ARGUMENTS, *sandbox])
