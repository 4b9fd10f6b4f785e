"""The committed page is made of the committed sources. Without Node; `npm run check` also compares what it builds."""

import hashlib
import json
from pathlib import Path

GATEWAY = Path(__file__).parents[2] / "services/api-gateway"
WEB = GATEWAY / "web"
STATIC = GATEWAY / "src/api_gateway/static"


def test_the_built_files_were_made_from_these_sources() -> None:
    recorded = json.loads((STATIC / "sources.json").read_text())
    below = {path for path in (WEB / "src").rglob("*") if path.is_file()}
    present = {name for name in recorded if (WEB / name).is_file()}
    assert {str(path.relative_to(WEB)) for path in below} <= recorded.keys()
    assert present == recorded.keys(), "a source of the built files is gone: run `npm run build`"
    digests = {name: hashlib.sha256((WEB / name).read_bytes()).hexdigest() for name in recorded}
    assert digests == recorded, "sources have changed since: run `npm run build`"


def test_the_page_asks_for_nothing_but_its_own_files() -> None:
    index = (STATIC / "index.html").read_text()
    assert "http" not in index
    at_start = {asset.name for asset in (STATIC / "assets").iterdir() if f"/assets/{asset.name}" in index}
    assert {name.rpartition(".")[2] for name in at_start} == {"css", "js", "svg"}
    for page in ("inbox", "dead_letters", "runs"):
        assert not [name for name in at_start if name.startswith(page)], "a page of the house is loaded when opened"
        assert list((STATIC / "assets").glob(f"{page}-*.js"))
    assert "style=" not in index
    assert index.count("<script") == 1


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text()
