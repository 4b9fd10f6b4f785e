"""The state folder of a laptop: readable by its owner alone, and with the same key tomorrow."""

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.state_folder import load_dev_key, load_or_make_secret, open_state_folder
from shared_clients.errors import Permanent


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("made_before", [None, 0o755, 0o777])
def test_home_is_for_its_owner_alone(tmp_path: Path, made_before: int | None) -> None:
    home = tmp_path / "deep" / ".flotilla"
    if made_before is not None:
        home.mkdir(parents=True)
        home.chmod(made_before)
    assert open_state_folder(home) == home.resolve()
    assert mode(home) == 0o700


def test_home_that_cannot_be_one_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for impossible in (file, file / "below"):
        with pytest.raises(Permanent, match="Set FLOTILLA_HOME to a folder that you may write"):
            open_state_folder(impossible)


def test_key_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    key = load_dev_key(tmp_path, None)
    assert key.startswith("fl-dev-")
    assert len(key) >= 32
    assert load_dev_key(tmp_path, None) == key
    assert mode(tmp_path / "dev-key") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["dev-key"]


def test_two_homes_have_two_keys(tmp_path: Path) -> None:
    keys = {load_dev_key(open_state_folder(tmp_path / name), None) for name in ("one", "two")}
    assert len(keys) == 2


def test_key_that_is_given_goes_first_and_is_not_written_down(tmp_path: Path) -> None:
    assert load_dev_key(tmp_path, "x" * 16) == "x" * 16
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("short", ["", "x" * 15])
def test_key_that_is_short_is_refused_without_being_shown(tmp_path: Path, short: str) -> None:
    with pytest.raises(Permanent, match=f"FLOTILLA_AUTH_DEV_KEY has {len(short)} characters; .* at least 16"):
        load_dev_key(tmp_path, short)


@pytest.mark.parametrize("text", ["", "\n"])
def test_key_file_that_is_empty_is_no_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "dev-key").write_text(text)
    with pytest.raises(Permanent, match=r"is empty.*delete it"):
        load_dev_key(tmp_path, None)


def test_key_file_that_cannot_be_read_or_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "dev-key").mkdir()
    with pytest.raises(Permanent, match=r"cannot keep a secret in .*dev-key"):
        load_dev_key(tmp_path, None)
    with pytest.raises(Permanent, match="cannot keep a secret"):
        load_dev_key(tmp_path / "nowhere", None)


def test_those_who_make_a_secret_at_once_agree_on_one(tmp_path: Path) -> None:
    together = threading.Barrier(6)
    found: list[str] = []

    def make(number: int) -> Callable[[], str]:
        def wait() -> str:
            together.wait()
            return f"secret-{number}"

        return wait

    def keep(number: int) -> None:
        found.append(load_or_make_secret(tmp_path / "key", make(number)))

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert set(found) == {(tmp_path / "key").read_text()}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
