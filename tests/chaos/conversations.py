"""What people talk about while things break: short conversations, each in another of the ways that the API offers."""

import asyncio
from typing import Protocol

from tests.chaos.users import Question, User


class Questions(Protocol):
    def __call__(self, *, token_ms: int = 10, words: int = 12, tool: bool = False) -> Question:
        """Make up a question that nobody has asked before."""


async def converse(user: User, question: Questions) -> None:
    """Have one of the conversations that people have."""
    kinds = (_chatting, _chatting, _reading, _polling, _cancelling, _hurrying)
    await user.chance.choice(kinds)(user, question)


async def probe(user: User, question: Question) -> None:
    """Ask one thing and wait for the answer."""
    accepted = await user.ask(question)
    if accepted is not None:
        await user.poll(accepted)


async def _chatting(user: User, question: Questions) -> None:
    """Two turns, each asked and read in one call, with a tool in the first or not."""
    tool = user.chance.random() < 0.5
    accepted = await user.chat(question(tool=tool, token_ms=user.chance.randint(5, 40)))
    if accepted is not None:
        await user.chat(question(token_ms=user.chance.randint(5, 40)), accepted.session_id)


async def _reading(user: User, question: Questions) -> None:
    """One turn that two read at once."""
    accepted = await user.ask(question(token_ms=user.chance.randint(10, 50)))
    if accepted is not None:
        await asyncio.gather(user.follow(accepted), user.follow(accepted), user.poll(accepted))


async def _polling(user: User, question: Questions) -> None:
    accepted = await user.ask(question(tool=True))
    if accepted is not None:
        await user.poll(accepted)


async def _cancelling(user: User, question: Questions) -> None:
    """A long answer that is not wanted any more, and a turn after it."""
    accepted = await user.ask(question(token_ms=100, words=40))
    if accepted is None:
        return
    await asyncio.sleep(user.chance.uniform(0.0, 1.0))
    await user.cancel(accepted)
    await asyncio.gather(user.follow(accepted), user.poll(accepted))
    after = await user.ask(question(), accepted.session_id)
    if after is not None:
        await user.poll(after)


async def _hurrying(user: User, question: Questions) -> None:
    """A session whose further turns are asked all at once."""
    first = await user.ask(question())
    if first is None:
        return
    asked = await asyncio.gather(*(user.ask(question(token_ms=5), first.session_id) for _ in range(3)))
    accepted = [one for one in asked if one is not None]
    await asyncio.gather(*(user.poll(one) for one in (first, *accepted)), *map(user.follow, accepted[:1]))
