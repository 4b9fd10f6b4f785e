"""A whole fleet starts, answers a question and ends, and opens no connection but those of its stores."""

import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from tests.simulators.house import events, open_house, run_of
from tests.simulators.viewer import seen

NETWORK_EVENTS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


class Connections:
    """The addresses to which this process connects; an audit hook cannot be removed, so it can be closed."""

    def __init__(self) -> None:
        self.open = True
        self.addresses: list[object] = []
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.open and event in NETWORK_EVENTS:
            self.addresses.append(arguments[1])


def is_address_of(address: object, host: str, port: int) -> bool:
    """Tell whether a socket connects to a server; a host that is a folder holds Unix sockets."""
    if host.startswith("/"):
        return address == f"{host}/.s.PGSQL.{port}"
    names = {host, "127.0.0.1", "::1"} if host == "localhost" else {host}
    return isinstance(address, tuple) and address[0] in names and address[1] == port


async def test_a_question_opens_no_connection_but_those_of_the_stores_and_of_its_client(
    new_database: Callable[..., str], template: str, tmp_path: Path
) -> None:
    database = new_database(like=template)
    url = make_url(database)
    host = str(url.query.get("host") or url.host)
    connections = Connections()
    try:
        async with open_house(database, tmp_path) as house, house.client() as client:
            answer = await client.post("/chat", json={"content": "hello"})
            assert seen(events(answer.text)).text == "You said hello."
            assert (await client.get(f"/api/v1/requests/{run_of(answer)}/result?wait=10")).status_code == 200
            gateway = urlsplit(house.url)
    finally:
        connections.open = False
    to_database = [one for one in connections.addresses if is_address_of(one, host, url.port or 5432)]
    from_client = [one for one in connections.addresses if is_address_of(one, "localhost", gateway.port or 0)]
    assert to_database, "the counter sees the connections of the database"
    assert from_client, "and those of the client"
    assert [one for one in connections.addresses if one not in (*to_database, *from_client)] == []
