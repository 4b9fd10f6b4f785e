import re
from pathlib import Path

from shared_models.catalog import EVENTS, topics_of, topics_written_by

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "secure-stores.md"
ACL = re.compile(r"^acl --allow-principal User:(\S+) --operation (\S+) --(topic|group) (\S+)$", re.MULTILINE)


def test_the_page_names_exactly_the_acls_that_the_catalogue_needs() -> None:
    needed = set[tuple[str, ...]]()
    for service in {name for event in EVENTS.values() for name in (*event.producers, *event.consumers)}:
        needed |= {(service, "Write", "topic", topic) for topic in topics_written_by(service)}
        needed |= {(service, "Read", "topic", topic) for topic in topics_of(service)}
        if topics_of(service):
            needed.add((service, "Read", "group", service))
    assert set(ACL.findall(PAGE.read_text())) == needed
