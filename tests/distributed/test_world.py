"""What ranks tell each other, with threads for processes: all but the sums."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from torch import distributed as dist

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.distributed import limits, pulse
from ragtune.distributed.place import Place
from ragtune.distributed.pulse import LostError, OverError, lost
from ragtune.distributed.store import come, serve
from ragtune.distributed.world import World
from tests.ports import free_port

HOST = socket.gethostname()


class Ranks:
    """Rank 0 here, and others in threads."""

    def __init__(self, size: int = 2) -> None:
        place = Place(0, size, 0, "127.0.0.1", 0)
        self.server = serve(place)
        self.places = [Place(r, size, r, "127.0.0.1", self.server.port) for r in range(size)]
        self.worlds = {0: World(self.places[0], self.server)}
        self._threads = ThreadPoolExecutor()

    def begin(self, rank: int, act: Callable[[World], Any]) -> Future[Any]:
        """Let a rank do something."""

        def work() -> Any:
            self.worlds[rank] = World(self.places[rank])
            return act(self.worlds[rank])

        return self._threads.submit(work)

    def again(self, rank: int, act: Callable[[World], Any]) -> Future[Any]:
        """Let one do something more."""
        return self._threads.submit(lambda: act(self.worlds[rank]))

    def close(self) -> None:
        self._threads.shutdown()
        for rank in sorted(self.worlds, reverse=True):
            self.worlds[rank].close()


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ranks]:
    monkeypatch.setattr(limits, "BEAT", 0.05)
    monkeypatch.setattr(
        limits, "LEAVING", 300
    )  # the process that would be ended is that of the tests
    ranks = Ranks()
    yield ranks
    ranks.close()


def test_what_rank_0_gives_is_there_on_all_and_what_all_give_is_there_on_rank_0(
    ranks: Ranks,
) -> None:
    other = ranks.begin(1, lambda one: (one.agree(), one.gather("there"), one.agree()))
    here = ranks.worlds[0]
    assert here.agree({"do": "train"}) == {"do": "train"}
    assert here.gather("here") == ["here", "there"]
    assert here.agree() is None
    assert other.result() == ({"do": "train"}, [], None)


def test_rank_0_sees_whether_it_would_wait_for_another(ranks: Ranks) -> None:
    here = ranks.worlds[0]
    assert not here.all_here
    other = ranks.begin(1, lambda one: one.meet("the same", {"kind": "CPU", "sums": "1"}))
    while not here.all_here:
        assert not other.done()  # it waits for this one
        time.sleep(0.01)
    here.meet("the same", {"kind": "CPU", "sums": "1"})
    other.result()
    assert here.all_here


def test_a_stop_waits_while_a_checkpoint_is_saved(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rank is late: who waits for it would stop, and the checkpoint be lost."""

    def stop() -> None:
        raise InterruptedError

    def late(one: World) -> None:
        time.sleep(0.2)
        with one.saving():
            one.require_same("a", "The adapter")

    other = ranks.begin(1, late)
    monkeypatch.setattr("ragtune.distributed.world.stop_if_asked", stop)
    here = ranks.worlds[0]
    with here.saving():
        here.require_same("a", "The adapter")
    other.result()
    with pytest.raises(InterruptedError):
        here.take("what nobody left")


def test_a_number_is_given_once(ranks: Ranks) -> None:
    other = ranks.begin(1, lambda one: [one.next("queue") for _ in range(5)])
    here = [ranks.worlds[0].next("queue") for _ in range(5)]
    assert sorted(here + other.result()) == list(range(10))


def test_who_has_something_else_is_named_on_every_rank(ranks: Ranks) -> None:
    other = ranks.begin(1, lambda one: one.meet({"torch": "1.0"}, {}))
    with pytest.raises(RagtuneError) as raised:
        ranks.worlds[0].meet({"torch": "2.0"}, {})
    assert raised.value.message == f"The versions on rank 1 on {HOST}: not what rank 0 has."
    assert type(other.exception()) is RagtuneError


def test_another_kind_of_device_is_named_and_who_is_alike_is_known_on_every_rank(
    ranks: Ranks,
) -> None:
    card = {"kind": "GPU", "sums": "H100"}
    others = {"kind": "GPU", "sums": "T4"}
    other = ranks.begin(1, lambda one: (one.meet({}, others), one.alike))
    assert ranks.worlds[0].meet({}, card) == [card, others]
    assert not ranks.worlds[0].alike
    assert other.result() == ([card, others], False)
    other = ranks.again(1, lambda one: one.require_same("CPU", "The kind of device"))
    with pytest.raises(RagtuneError, match=f"The kind of device on rank 1 on {HOST}"):
        ranks.worlds[0].require_same("GPU", "The kind of device")


def test_a_value_may_be_larger_than_the_store_takes(ranks: Ranks) -> None:
    """It has a limit of 8 MiB, beyond which it says that the connection broke."""
    large = random.Random(0).randbytes(10 << 20).hex()
    ranks.worlds[0].put("large", large)
    other = ranks.begin(1, lambda one: one.take("large", forget=True))
    assert other.result() == large
    assert not ranks.worlds[0].has("large")
    assert not ranks.worlds[0].has("large+4194304")


def test_what_was_read_is_forgotten(ranks: Ranks) -> None:
    def follow(one: World) -> None:
        one.agree()
        one.gather("there")

    here = ranks.worlds[0]
    other = ranks.begin(1, follow)
    here.agree("told")
    here.gather("here")
    other.result()
    assert not any(map(here.has, ("told/1", "said/2/1")))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:598] Connection closed by peer"),
        RuntimeError("NCCL communicator was aborted on rank 0"),
        dist.DistBackendError("NCCL error: remote process exited or there was a network error"),
    ],
)
def test_a_broken_connection_says_who_is_gone(ranks: Ranks, error: Exception) -> None:
    ranks.begin(1, lambda one: one.put("failed/1", ["No memory.", "", ""])).result()
    with pytest.raises(LostError, match=r"Rank 1.*: No memory\."), ranks.worlds[0].together():
        raise error


def test_an_error_of_ones_own_stays_what_it_is(ranks: Ranks) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), ranks.worlds[0].together():
        raise RuntimeError("shapes differ")


def test_a_rank_that_fails_is_heard_while_it_is_waited_for(ranks: Ranks) -> None:
    other = ranks.begin(
        1, lambda one: one.fail(RagtuneError("Too little memory.", "Take less."), "in row 7")
    )
    with pytest.raises(LostError) as raised:
        ranks.worlds[0].take("never")
    assert raised.value.message == f"Rank 1 on {HOST}: Too little memory."
    assert raised.value.advice == "Take less."
    assert raised.value.__notes__ == ["in row 7"]
    ranks.worlds[0].put("over", 1)
    assert other.result() is None


def test_a_rank_that_fails_before_its_first_sign_of_life_is_named(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine its thread comes late."""
    monkeypatch.setattr(pulse.Pulse, "_run", lambda _: None)  # of rank 0 it runs already
    ranks.begin(1, lambda one: one.put("failed/1", ["Too little memory.", "Take less.", ""]))
    with pytest.raises(LostError) as raised:
        ranks.worlds[0].take("never")
    assert raised.value.message == f"Rank 1 on {HOST}: Too little memory."


def test_all_end_with_the_exit_code_of_rank_0_also_who_comes_late(ranks: Ranks) -> None:
    def follow(one: World) -> None:
        try:
            one.agree()
        finally:
            one.close()

    late = threading.Timer(0.3, lambda: others.append(ranks.begin(1, follow)))
    others: list[Future[None]] = []
    late.start()
    ranks.worlds[0].dismiss(3)
    late.join()
    (other,) = others
    error = other.exception()
    assert isinstance(error, OverError)
    assert error.exit_code == 3


def test_a_rank_that_gives_no_sign_of_life_is_lost(ranks: Ranks) -> None:
    ranks.begin(1, lambda one: one.pulse.stop()).result()
    ranks.worlds[0].pulse._silent = 0.3  # only now: its machine is known when it has begun
    with pytest.raises(LostError, match=f"Lost rank 1 on {HOST}: it gave no sign of life for"):
        ranks.worlds[0].take("never")


def test_a_rank_that_never_comes_is_lost(ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMING", 0.2)
    with pytest.raises(LostError, match="Lost rank 1: it didn't come within"):
        ranks.worlds[0].take("never")


def test_who_fails_is_gone_before_rank_0_gives_up_and_that_within_a_minute_and_a_half() -> None:
    """`fail` waits so long for rank 0 to hear, and its process ends so long after: then a sum breaks off."""
    assert limits.KNOWN + limits.LEAVING < limits.STUCK
    assert limits.SILENT + limits.STUCK <= 90  # docs/gpus.md
    assert limits.BROKEN + 2 * limits.BEAT < limits.KNOWN


def test_a_port_that_is_taken_is_named() -> None:
    server = serve(Place(0, 2, 0, "127.0.0.1", 0))
    with pytest.raises(UsageError) as raised:
        serve(Place(0, 2, 0, "127.0.0.1", server.port))
    said = f"Rank 0 on {HOST}: port {server.port} of 127.0.0.1 can't be had"
    assert said in raised.value.message
    assert "choose another MASTER_PORT" in raised.value.advice


def test_a_rank_of_another_run_with_the_same_port_is_refused(ranks: Ranks) -> None:
    """It would do nothing for as long as the first run takes, and end well."""
    ranks.begin(1, lambda one: one.put("there", True)).result()
    port = ranks.server.port
    with pytest.raises(UsageError, match=f"another run uses port {port} of 127.0.0.1") as raised:
        World(ranks.places[1])
    assert raised.value.message.startswith(f"Rank 1 on {HOST} has come already")
    assert "another MASTER_PORT" in raised.value.advice


def test_a_store_that_is_gone_when_a_rank_comes_is_named() -> None:
    class Gone:
        def add(self, *_: object) -> int:
            raise dist.DistNetworkError("Connection reset by peer")

    with pytest.raises(UsageError, match=f"Rank 1 on {HOST} can't reach rank 0 at"):
        come(Place(1, 2, 1, "127.0.0.1", 4242), Gone())  # type: ignore[arg-type]


def test_a_rank_0_that_can_not_be_reached_is_named() -> None:
    port = free_port()
    with pytest.raises(UsageError, match=f"can't reach rank 0 at 127.0.0.1:{port}."):
        World(Place(1, 2, 1, "127.0.0.1", port), patience=1)


def test_waiting_ends_at_once_when_a_signal_came(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.base import stopping

    monkeypatch.setattr(stopping._state, "asked", 15)
    start = time.monotonic()
    with pytest.raises(stopping.Stopped):
        ranks.worlds[0].take("never")
    assert time.monotonic() - start < 60


def test_who_is_lost_while_all_are_stopped_is_no_reason(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.base import stopping

    here = ranks.worlds[0]
    monkeypatch.setattr(here.pulse, "lost", lost("rank 1", "it was stopped"))
    monkeypatch.setattr(stopping._state, "asked", 15)
    for wait in (here.agree, lambda: here.next("queue"), lambda: here.take("never")):
        with pytest.raises(stopping.Stopped):
            wait()


def test_a_rank_waits_until_rank_0_has_ended_also_if_it_was_told_to_stop(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.base import stopping

    monkeypatch.setattr(stopping._state, "asked", 15)

    def follow(one: World) -> None:
        one.put("there", True)
        one.await_end()

    other = ranks.begin(1, follow)
    with ranks.worlds[0].saving():
        ranks.worlds[0].take("there")
    ranks.worlds[0].put("over", 130)
    error = other.exception()
    assert isinstance(error, OverError)
    assert error.exit_code == 130
