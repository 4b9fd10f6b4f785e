"""A browser, a page that is watched, and something to talk to: the fake gateway, or a real fleet with the demo."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.chromium import launch
from tests.browser.fake_gateway import FakeGateway
from tests.browser.steps import message_box
from tests.fleets import Background, Fleet, held, one_process

type OpenPage = Callable[..., Page]

DEMO = Path(__file__).parents[2] / "agent-configs"

_REPORT_VIOLATIONS = """
addEventListener('securitypolicyviolation', event =>
  console.error(`CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as gateway:
        yield gateway
        gateway.open_gates()


@pytest.fixture
def fake_link(gateway: FakeGateway) -> str:
    return gateway.link()


@pytest.fixture(scope="session")
def demo_fleet(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """What `flotilla up` runs, with the agents that it comes with."""
    with held(background, one_process(tmp_path_factory.mktemp("demo"), DEMO)) as fleet:
        yield fleet


@pytest.fixture
def fleet_link(demo_fleet: Fleet) -> str:
    """A link into the real fleet, without the conversations of the test before."""
    headers = {"Authorization": f"Bearer {demo_fleet.key}"}
    with httpx.Client(base_url=demo_fleet.urls[0], headers=headers) as client:
        for session in client.get("/api/v1/sessions", params={"limit": 200}).json()["sessions"]:
            client.delete(f"/api/v1/sessions/{session['session_id']}").raise_for_status()
        return f"{demo_fleet.urls[0]}/#code={client.post('/auth/codes').json()['code']}"


@pytest.fixture(params=["fake", "fleet"])
def login_link(request: pytest.FixtureRequest) -> str:
    """A single-use link into a chat without conversations."""
    link: str = request.getfixturevalue(f"{request.param}_link")
    return link


@dataclass
class Watch:
    """Whatever no page may ever do: break its policy, call a foreign address, throw an error."""

    complaints: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext, origin: str) -> None:
        def complain(kind: str, what: object) -> None:
            self.complaints.append(f"{kind}: {what}")

        def requested(url: str) -> None:
            if not url.startswith((origin + "/", "data:")):
                complain("foreign request", url)

        def said(type_: str, text: str) -> None:
            # The browser's own line for a refused or broken call, which the tests provoke.
            if type_ in {"error", "warning"} and not text.startswith("Failed to load resource"):
                complain(type_, text)

        context.add_init_script(_REPORT_VIOLATIONS)
        context.on("request", lambda request: requested(request.url))
        context.on("console", lambda message: said(message.type, message.text))
        context.on("weberror", lambda error: complain("uncaught", error.error))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a link in a browser of its own, and wait until the chat is there unless `ready` is false."""
    watch, contexts = Watch(), list[BrowserContext]()

    def opened(link: str, *, ready: bool = True, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        parts = urlsplit(link)
        watch.over(context, f"{parts.scheme}://{parts.netloc}")
        page = context.new_page()
        page.goto(link)
        if ready:
            message_box(page).wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert watch.complaints == []


@pytest.fixture
def page(open_page: OpenPage, login_link: str) -> Page:
    """The chat, signed in, for what must hold with every gateway."""
    return open_page(login_link)


@pytest.fixture
def fake_page(open_page: OpenPage, fake_link: str) -> Page:
    """The chat, signed in to the fake gateway, for what needs its faults and gates."""
    return open_page(fake_link)
