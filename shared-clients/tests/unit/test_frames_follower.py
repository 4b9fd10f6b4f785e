from uuid import UUID

from run_frames.follower import MAX_LIVE, MAX_LIVE_BYTES, MAX_PAGE_BYTES, Followed, Follower, fitting
from shared_models.frames import START, Cursor, Frame

RUN = ("acme", UUID(int=1))


def frames(first: int, last: int) -> list[Frame]:
    return [Frame(Cursor(1, number), "CUSTOM", b"{}") for number in range(first, last + 1)]


def followed(at: int | None, *followers: Follower) -> Followed:
    log = Followed(RUN)
    log.position = None if at is None else Cursor(1, at)
    log.followers.update(followers)
    return log


def taken(follower: Follower) -> list[int]:
    found = []
    while frame := follower.take():
        found.append(frame.cursor.sequence)
    return found


async def test_live_frames_wait_until_the_log_is_read_and_then_come_without_repeats() -> None:
    follower = Follower(*RUN, START)
    log = followed(2, follower)
    follower.listening = True

    log.deliver(frames(3, 5), "1-2")
    assert taken(follower) == []
    follower.turn(frames(1, 4), last=True)
    log.join(follower, Cursor(1, 4), Cursor(1, 2))

    assert taken(follower) == [1, 2, 3, 4, 5]


async def test_a_follower_that_falls_behind_goes_back_to_the_log_and_keeps_nothing() -> None:
    follower = Follower(*RUN, START)
    log = followed(0, follower)
    follower.listening = True
    follower.turn([], last=True)

    log.deliver(frames(1, MAX_LIVE + 5), "1-0")

    assert follower.behind
    assert taken(follower) == []
    log.deliver(frames(MAX_LIVE + 6, MAX_LIVE + 9), f"1-{MAX_LIVE + 5}")
    follower.listening = True
    follower.turn(frames(1, MAX_LIVE + 9), last=True)
    assert taken(follower) == list(range(1, MAX_LIVE + 10))


async def test_falling_behind_while_the_log_is_read_means_reading_it_again() -> None:
    follower = Follower(*RUN, START)
    log = followed(0, follower)
    follower.listening = True

    log.deliver(frames(1, MAX_LIVE + 1), "1-0")
    follower.turn(frames(1, 3), last=True)

    assert follower.behind
    assert taken(follower) == [1, 2, 3]


async def test_a_log_that_lost_frames_is_read_again_from_where_it_ends() -> None:
    behind, level = Follower(*RUN, Cursor(1, 40)), Follower(*RUN, Cursor(1, 60))
    log = followed(60, behind, level)
    level.listening = behind.listening = True
    level.turn([], last=True)
    log.deliver(frames(61, 61), "1-60")

    behind.turn([], last=True)
    moved = log.join(behind, Cursor(1, 40), Cursor(1, 60))
    log.deliver(frames(62, 62), "1-61")
    log.deliver(frames(60, 62), "1-40")

    assert moved
    assert taken(behind) == [60, 61, 62]
    assert taken(level) == [61, 62]


async def test_the_first_follower_says_where_reading_begins_and_a_later_one_may_move_it_back() -> None:
    first, second = Follower(*RUN, START), Follower(*RUN, START)
    log = followed(None, first, second)

    assert log.join(first, Cursor(1, 7), None)
    assert log.join(second, Cursor(1, 5), None)

    assert log.position == Cursor(1, 5)


async def test_the_end_replaces_whatever_was_ready() -> None:
    follower = Follower(*RUN, START)
    follower.listening = True
    follower.turn(frames(1, 2), last=True)
    follower.push(frames(3, 3)[0])

    follower.end(frames(9, 9))
    follower.push(frames(10, 10)[0])

    assert taken(follower) == [9]
    assert follower.done


async def test_only_who_waits_for_a_frame_is_silent() -> None:
    follower = Follower(*RUN, START)
    assert not follower.silent(0)

    follower.wanting = True

    assert follower.silent(0)
    assert not follower.silent(60)


def large(number: int, size: int) -> Frame:
    return Frame(Cursor(1, number), "CUSTOM", b"x" * size)


async def test_a_few_large_frames_are_as_good_as_many() -> None:
    follower = Follower(*RUN, START)
    log = followed(0, follower)
    follower.listening = True
    follower.turn([], last=True)

    half = MAX_LIVE_BYTES // 2
    log.deliver([large(1, half), large(2, half)], "1-0")
    assert not follower.behind
    log.deliver([large(3, 1)], "1-2")

    assert follower.behind
    assert taken(follower) == []
    follower.listening = True
    follower.turn([], last=True)
    log.deliver([large(4, half), large(5, half)], "1-3")
    assert taken(follower) == [4, 5]


async def test_what_was_taken_makes_room_again() -> None:
    follower = Follower(*RUN, START)
    log = followed(0, follower)
    follower.listening = True
    follower.turn([], last=True)
    for number in range(1, 10):
        log.deliver([large(number, MAX_LIVE_BYTES)], f"1-{number - 1}")
        assert taken(follower) == [number]
    assert not follower.behind


def test_a_page_is_kept_as_far_as_it_fits_and_by_one_frame_at_least() -> None:
    third = MAX_PAGE_BYTES // 3
    assert len(fitting([large(number, third) for number in range(5)])) == 3
    assert len(fitting([large(1, 10 * MAX_PAGE_BYTES), large(2, 1)])) == 1
    assert fitting(frames(1, 100)) == frames(1, 100)
    assert fitting([]) == []
