from uuid import UUID

from run_frames.follower import (
    MAX_LIVE,
    MAX_LIVE_BYTES,
    MAX_PAGE_BYTES,
    FollowedLog,
    Follower,
    FollowerState,
    RunKey,
    within_page_limit,
)
from shared_models.frames import START, Cursor, Frame

RUN = RunKey("acme", UUID(int=1))


def frames(first: int, last: int) -> list[Frame]:
    return [Frame(Cursor(1, number), "CUSTOM", b"{}") for number in range(first, last + 1)]


def followed_log(position: int | None, *followers: Follower) -> FollowedLog:
    log = FollowedLog(RUN)
    log.position = None if position is None else Cursor(1, position)
    log.followers.update(followers)
    return log


def taken(follower: Follower) -> list[int]:
    sequences = []
    while frame := follower.next_frame():
        sequences.append(frame.cursor.sequence)
    return sequences


async def test_live_frames_wait_until_the_log_is_read_and_then_come_without_repeats() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(2, follower)
    follower.start_reading()

    log.deliver(frames(3, 5), "1-2")
    assert taken(follower) == []
    follower.add_page(frames(1, 4), last=True)
    log.go_live(follower, Cursor(1, 4), Cursor(1, 2))

    assert taken(follower) == [1, 2, 3, 4, 5]


async def test_a_follower_that_falls_behind_returns_to_the_log_and_keeps_no_live_frame() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(0, follower)
    follower.start_reading()
    follower.add_page([], last=True)

    log.deliver(frames(1, MAX_LIVE + 5), "1-0")

    assert follower.state is FollowerState.BEHIND
    assert taken(follower) == []
    log.deliver(frames(MAX_LIVE + 6, MAX_LIVE + 9), f"1-{MAX_LIVE + 5}")
    follower.start_reading()
    follower.add_page(frames(1, MAX_LIVE + 9), last=True)
    assert taken(follower) == list(range(1, MAX_LIVE + 10))


async def test_falling_behind_while_the_log_is_read_means_reading_it_again() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(0, follower)
    follower.start_reading()

    log.deliver(frames(1, MAX_LIVE + 1), "1-0")
    follower.add_page(frames(1, 3), last=True)

    assert follower.state is FollowerState.BEHIND
    assert taken(follower) == [1, 2, 3]


async def test_a_log_that_lost_frames_is_read_again_from_where_it_ends() -> None:
    behind, level = Follower(*RUN, Cursor(1, 40)), Follower(*RUN, Cursor(1, 60))
    log = followed_log(60, behind, level)
    level.start_reading()
    behind.start_reading()
    level.add_page([], last=True)
    log.deliver(frames(61, 61), "1-60")

    behind.add_page([], last=True)
    moved = log.go_live(behind, Cursor(1, 40), Cursor(1, 60))
    log.deliver(frames(62, 62), "1-61")
    log.deliver(frames(60, 62), "1-40")

    assert moved
    assert taken(behind) == [60, 61, 62]
    assert taken(level) == [61, 62]


async def test_the_first_follower_sets_the_position_and_a_later_one_may_move_it_back() -> None:
    first, second = Follower(*RUN, START), Follower(*RUN, START)
    log = followed_log(None, first, second)

    assert log.go_live(first, Cursor(1, 7), None)
    assert log.go_live(second, Cursor(1, 5), None)

    assert log.position == Cursor(1, 5)


async def test_the_last_frames_replace_all_frames_that_were_ready() -> None:
    follower = Follower(*RUN, START)
    follower.start_reading()
    follower.add_page(frames(1, 2), last=True)
    follower.add_live(frames(3, 3)[0])

    follower.end(frames(9, 9))
    follower.add_live(frames(10, 10)[0])

    assert taken(follower) == [9]
    assert follower.done


async def test_only_a_follower_whose_client_waits_is_silent() -> None:
    follower = Follower(*RUN, START)
    assert not follower.silent(0)

    follower.client_waits = True

    assert follower.silent(0)
    assert not follower.silent(60)


def large(number: int, size: int) -> Frame:
    return Frame(Cursor(1, number), "CUSTOM", b"x" * size)


async def test_a_few_large_frames_make_a_follower_fall_behind_as_many_small_ones_do() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(0, follower)
    follower.start_reading()
    follower.add_page([], last=True)

    half = MAX_LIVE_BYTES // 2
    log.deliver([large(1, half), large(2, half)], "1-0")
    assert not follower.must_read_log
    log.deliver([large(3, 1)], "1-2")

    assert follower.state is FollowerState.BEHIND
    assert taken(follower) == []
    follower.start_reading()
    follower.add_page([], last=True)
    log.deliver([large(4, half), large(5, half)], "1-3")
    assert taken(follower) == [4, 5]


async def test_frames_that_were_returned_no_longer_count() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(0, follower)
    follower.start_reading()
    follower.add_page([], last=True)
    for number in range(1, 10):
        log.deliver([large(number, MAX_LIVE_BYTES)], f"1-{number - 1}")
        assert taken(follower) == [number]
    assert follower.state is FollowerState.LIVE


def test_a_page_is_cut_at_its_limit_and_keeps_at_least_one_frame() -> None:
    third = MAX_PAGE_BYTES // 3
    assert len(within_page_limit([large(number, third) for number in range(5)])) == 3
    assert len(within_page_limit([large(1, 10 * MAX_PAGE_BYTES), large(2, 1)])) == 1
    assert within_page_limit(frames(1, 100)) == frames(1, 100)
    assert within_page_limit([]) == []


async def test_a_live_follower_that_returns_to_the_log_keeps_its_live_frames_for_later() -> None:
    follower = Follower(*RUN, START)
    log = followed_log(0, follower)
    follower.start_reading()
    follower.add_page([], last=True)

    follower.read_log_again()
    log.deliver(frames(3, 4), "1-0")
    assert taken(follower) == []
    follower.add_page(frames(1, 3), last=True)

    assert taken(follower) == [1, 2, 3, 4]


async def test_no_state_leads_out_of_the_end() -> None:
    follower = Follower(*RUN, START)
    follower.end()

    follower.start_reading()
    follower.read_log_again()
    follower.add_page([], last=True)
    follower.add_live(frames(1, 1)[0])

    assert follower.state is FollowerState.ENDED
    assert follower.done
