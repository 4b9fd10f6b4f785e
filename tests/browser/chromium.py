"""The browser that the tests drive: the machine's own Chromium, kept from calling anybody on its own account.

Where there is none, Playwright looks for the one that `playwright install chromium` fetches, and says so.
"""

import os
import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    executable = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=executable, args=[*ARGUMENTS, *sandbox])
