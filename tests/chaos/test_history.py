import asyncio
from dataclasses import replace
from pathlib import Path

from tests.chaos.history import History, Kind, Outcome, new, read_history


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        begun = await history.begin(new(Kind.ASK, content="x", key="k"))
        ended = await history.end(replace(begun, outcome=Outcome.OK, request_id="r", status=202))
        stream = await history.begin(new(Kind.STREAM, request_id="r"))
        await history.end(replace(stream, outcome=Outcome.UNKNOWN, frames=(("1-1", "{}"),)))
    assert read_history(tmp_path / "history.jsonl") == history.entries
    assert begun.operation == ended.operation != stream.operation
    assert begun.at <= ended.at <= stream.at


async def test_a_line_is_on_disk_before_the_user_goes_on(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        for number in range(1, 4):
            await history.begin(new(Kind.ASK, content=str(number)))
            assert len(read_history(history.file)) == number


async def test_lines_of_users_who_write_at_once_stay_whole(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        await asyncio.gather(*(history.begin(new(Kind.ASK, content="x" * 10_000)) for _ in range(50)))
        assert len({entry.operation for entry in read_history(history.file)}) == 50
