"""F24: the network before each store is slow, narrow, cut, silent, deaf, and breaks off in the middle of a frame."""

from collections.abc import Awaitable, Callable
from typing import Final

from tests.chaos.ground import Shape
from tests.chaos.proxy import Proxy, Weather
from tests.chaos.registry import Scenario
from tests.chaos.trial import Trial

STORES: Final = ("postgres", "kafka", "redis")
LASTS_SECONDS: Final = 3.0
LARGEST: Final = 2_000
"""Bytes of answers after which a connection breaks off, at most."""


async def spoil_the_network(trial: Trial) -> None:
    """In the full form every weather before every store; in the short one each before one of them."""
    pairs = [(name, spoil) for name in STORES for spoil in SPOILS]
    if trial.short:
        pairs = [(trial.chance.choice(STORES), spoil) for spoil in SPOILS]
    async with trial.crowd():
        for name, spoil in pairs:
            await trial.sleep(trial.chance.uniform(0.3, 1.0))
            await trial.fault(f"{name}: {(spoil.__doc__ or '').strip()}")
            await spoil(trial, trial.ground.proxies[name])
    passed = ", ".join(f"{name} {proxy.connections}" for name, proxy in trial.ground.proxies.items())
    trial.notes.append(f"connections through the proxies: {passed}")


async def _delay(trial: Trial, proxy: Proxy) -> None:
    """Every piece is 50 ms late."""
    await _for_a_while(trial, proxy, Weather(delay=0.05))


async def _narrow(trial: Trial, proxy: Proxy) -> None:
    """100 kB a second."""
    await _for_a_while(trial, proxy, Weather(rate=100_000))


async def _swallow(trial: Trial, proxy: Proxy) -> None:
    """Nothing passes, and nobody is told."""
    await _for_a_while(trial, proxy, Weather(blocked=True))


async def _half_open(trial: Trial, proxy: Proxy) -> None:
    """It hears us, and we do not hear it; then the connections break."""
    await _for_a_while(trial, proxy, Weather(deaf=True))


async def _reset(trial: Trial, proxy: Proxy) -> None:
    """A connection breaks off in the middle of an answer."""
    await _for_a_while(trial, proxy, Weather(reset_after=trial.chance.randint(1, LARGEST)))


async def _cut(trial: Trial, proxy: Proxy) -> None:
    """All connections break at once."""
    proxy.cut()
    await trial.sleep(LASTS_SECONDS / 2)


async def _for_a_while(trial: Trial, proxy: Proxy, weather: Weather) -> None:
    await proxy.change(weather)
    try:
        await trial.sleep(LASTS_SECONDS)
    finally:
        if weather.deaf:
            proxy.cut()  # bytes were lost: nobody may go on in the middle of what is left
        await proxy.change(Weather())


SPOILS: Final[tuple[Callable[[Trial, Proxy], Awaitable[None]], ...]] = (
    _delay,
    _narrow,
    _swallow,
    _half_open,
    _reset,
    _cut,
)

SCENARIO = Scenario(
    name="F24",
    title="a bad network before each store",
    play=spoil_the_network,
    shape=Shape(proxied=True),
    frames_lost=True,
    full_seconds=480.0,
)
