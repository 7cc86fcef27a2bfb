"""The concurrency limit of an instance, found while it runs: a pure controller."""

from __future__ import annotations

import math
from typing import Literal

from tasks.domain.refusals import Refusals

START = 4
"""The first limit: low, since a model that takes one request at a time may need half a minute for each."""
LARGEST = 256
LARGEST_CAP = 1024
HEADROOM = 1.15
"""The limit is this many times the requests that the server works on at once, plus one: covers those in transit."""
WORTH = 0.4
"""A higher limit is kept if throughput grows by at least this share of the limit's growth."""
USELESS = 0.2
"""A lower limit is kept if throughput falls by at most this share of the limit's reduction."""
LARGER = (HEADROOM, 1.5, 2.0)
"""Factors of the first step, the second and so on, while each step proves right; the last one repeats."""
SMALLER = (1.27, 1.15, 1.15, 1.33)
"""The same downwards. After these, as far as latency shows that requests wait, at most to a half."""
MOST_LARGER = 3.0
FEW = 4
"""At this limit and below, no lower one is tried: one request fewer would cost a large part of the throughput."""
FASTER, SLOWER = 1.1, 0.85
"""A larger change of throughput under the same limit means that the server has changed."""
NOISE = 12
"""A round takes 1 + this * v times as many responses if v is the variance of latencies over their squared mean."""
UNEVEN = 0.15
"""Variance of latencies over their squared mean above which they differ by more than a filling queue explains."""
WAITING = 1.6
"""A latency of this many times that of requests that did not wait shows that they now do."""
BACKOFF = 0.7
CEILING_SECONDS = (2.0, 32.0)
"""How long a limit that overloaded the server is not tried again: the first time, and at most after repeated ones."""
HOLD_SECONDS = 1.0
"""The shortest time that a found limit is held before another one is tried."""
MOST_HOLDS = 16
"""A lower limit is tried after 1, 2, 4, ... holds, at most this many, as long as it proves wrong."""
ROUND_SECONDS = 0.05
"""Shorter measurements reflect the event loop more than the server."""

Phase = Literal["hold", "larger", "smaller"]


class AdaptiveLimit:
    """The limit of requests in flight at one instance: as many as add throughput, and a few more.

    Throughput is measured in rounds. Only responses to requests sent under the round's limit count, and only while
    there was enough work to use it up. A round at another limit shows how the server reacts:

    * larger: if throughput grows with the limit, the step was right and the next one is larger (at the start from
      4 to 8, 16, ...). If only latency grows, the limit goes back;
    * smaller: if throughput falls with the limit, this shows how many requests the server works on at once. If not,
      requests were waiting in the server, and an even lower limit is tried.

    429, 503 and time-outs lower the limit at once, unless they are few among many responses, or about as frequent
    under much lower limits. ``cap`` is the largest limit (default 256, at most 1024). Times are seconds of a monotonic
    clock.
    """

    def __init__(self, cap: int | None = None) -> None:
        self.cap = min(cap or LARGEST, LARGEST_CAP)
        self.limit = min(START, self.cap)
        self.throughput = 0.0
        """Requests per second in the last round with enough work; 0 before the first one."""
        self.latency = 0.0
        """Mean seconds from sending a request to its response, in that round."""
        self._phase: Phase = "larger" if self.limit > 1 else "hold"
        # The baseline of a round. At the start it is a single request, measured by the first response.
        self._base = self._held = 1
        self._base_rate = self._base_latency = 0.0
        self._step = 2
        self._unloaded = math.inf  # last known latency without waiting in the server
        self._noise = 0.0  # variance of latencies, relative to the square of their mean
        self._holds = 0  # rounds at the held limit
        self._hold_since = 0.0
        self._wait, self._down_in = 1, 3  # after how many holds a lower limit is tried
        self._refusals = Refusals()
        self._answers = 0  # since the last refusal
        self._ceiling = self.cap + 1
        self._ceiling_seconds = CEILING_SECONDS[0]
        self._ceiling_until = self._decreased = -math.inf
        # The round: responses count from the first one to a request sent after ``_since``.
        self._since = -math.inf
        self._begun: float | None = None
        self._last = self._latencies = self._squares = 0.0
        self._count = self._fresh = self._full = 0
        self._needed = self._early = 0
        self._pause = math.inf  # a longer gap between responses is unusual
        self._patience = math.inf  # a longer round is ended: the server has become slower
        self._set(self.limit, self._since, ratio=START)

    def answered(self, started: float, now: float, in_flight: int) -> None:
        """Count the response, at ``now``, to a request sent at ``started``; ``in_flight`` includes this request."""
        self._answers += 1
        begun = self._begun
        if begun is None:
            if started < self._since:
                return  # it was sent under another limit
            self._begun = self._last = now
            if not self._base_rate:  # the very first request: nearly alone
                self._base_latency = max(now - started, 1e-6)
                self._base_rate = 1 / self._base_latency
            return
        gap, self._last = now - self._last, now
        if gap > self._pause:  # the whole server paused, which is independent of the limit: ignored once per round
            self._since, self._begun, self._pause, self._patience = now, None, math.inf, math.inf
            self._clear()
            return
        self._count = count = self._count + 1
        if started >= self._since:
            latency = now - started
            self._fresh += 1
            self._latencies += latency
            self._squares += latency * latency
        if in_flight >= self.limit:
            self._full += 1
        elapsed = now - begun
        if count < self._needed or self._fresh < self._early or elapsed < ROUND_SECONDS:
            if elapsed > self._patience and count >= 8 and self._fresh:
                self._end_round(now, count / elapsed)
            elif self._phase == "larger" and self._fresh >= self._early:
                self._judge_early(now)
            return
        # Servers respond in bursts: a round lasts from the first response of one burst to the first of another.
        if gap * count >= 0.9 * elapsed or count >= 4 * self._needed:
            self._end_round(now, count / elapsed)

    def _judge_early(self, now: float) -> None:
        # As fast as with fewer in flight: raise the limit without waiting for the end of the round.
        latency = self._latencies / self._fresh
        if (
            latency <= 1.25 * self._base_latency
            and self._full >= 0.8 * self._count
            and latency >= ROUND_SECONDS  # below that, transit dominates the latency
            and self.limit >= 1.9 * self._base
        ):
            self._end_round(now, self.limit / latency)

    def _end_round(self, now: float, rate: float) -> None:
        latency = max(self._latencies / self._fresh, 1e-9)
        if self._full < 0.8 * self._count:  # the available work, not the limit, bounds throughput
            if self._phase == "hold":
                self._restart(now)
            else:
                self._hold(self._held if self._phase == "smaller" else max(self._base, min(START, self.cap)), now)
            return
        self.throughput, self.latency = rate, latency
        noise = max(0.0, self._squares / self._fresh / latency**2 - 1)
        self._noise += (0.3 if self._noise else 1.0) * (min(4.0, noise) - self._noise)
        if self._phase == "hold":
            self._judge_hold(now, rate, latency)
        elif self._phase == "larger":
            self._judge_larger(now, rate, latency)
        else:
            self._judge_smaller(now, rate)

    def _judge_hold(self, now: float, rate: float, latency: float) -> None:
        self._holds += 1
        if now >= self._ceiling_until:
            self._ceiling = self.cap + 1
        faster = rate > FASTER * self._base_rate
        slower = rate < SLOWER * self._base_rate
        share = 1.0 if self._holds == 1 or faster or slower else 0.3
        self._base_rate += share * (rate - self._base_rate)
        self._base_latency += share * (latency - self._base_latency)
        if slower and self._holds > 1:
            self._down_in = self._wait = 1
            self._holds = 0
            self._restart(now)  # this round covers both speeds: only the next one is a baseline
            self._needed = self._early = max(self.limit // 2, 8)
            self._patience = math.inf
        elif self.limit > FEW and latency > (WAITING + self._noise) * self._unloaded:
            self._wait = 1
            self._try_smaller(now, quickly=True)
        elif self._holds > 1 and (faster or now - self._hold_since >= HOLD_SECONDS):
            self._down_in -= 1
            if self._down_in <= 0 and self.limit > FEW and not faster:
                self._try_smaller(now)
            else:
                self._try_larger(now)
        else:
            self._restart(now)

    def _try_larger(self, now: float) -> None:
        if self._phase != "larger":
            self._phase, self._step, self._base = "larger", 0, self.limit
        # If latencies differ much, the effect of a large step shows sooner, and it costs only some waiting.
        factor = max(LARGER[min(self._step, len(LARGER) - 1)], min(MOST_LARGER, HEADROOM + 2 * self._noise))
        larger = max(_with_headroom(self.limit), round(self.limit * factor))
        if self._ceiling <= self.cap:  # halfway to the limit that was too high
            larger = min(larger, self._ceiling - 1, max(self.limit + 1, (self.limit + self._ceiling) // 2))
        larger = min(larger, self.cap)
        if larger <= self.limit:
            self._hold(self.limit, now)
            return
        self._step += 1
        self._set(larger, now, ratio=larger / self._base)

    def _judge_larger(self, now: float, rate: float, latency: float) -> None:
        gain, ratio = rate / self._base_rate, self.limit / self._base
        first = self._unloaded == math.inf
        uneven = first and self._noise > UNEVEN
        if gain >= 1 + WORTH * (ratio - 1):
            self._unloaded, self._wait = latency, 1
            self._ceiling_seconds = max(self._ceiling_seconds / 2, CEILING_SECONDS[0])
            self._go_on_from(rate, latency, now)
        elif uneven and self._base == 1:  # one response is no baseline, but this round is
            self._go_on_from(rate, latency, now)
        elif self._step > 1:  # throughput grew with the limit until the step before
            at_once = self._base * gain
            self._unloaded = latency if uneven else latency * min(1.0, at_once / self.limit)
            self._hold(self.limit if uneven else min(self.limit, max(2, _with_headroom(at_once))), now)
            if first:
                self._hold_since = now - HOLD_SECONDS
        else:
            self._hold(max(2, self._base), now)  # one in transit while another is worked on, if ``cap`` allows it

    def _go_on_from(self, rate: float, latency: float, now: float) -> None:
        self._base, self._base_rate, self._base_latency = self.limit, rate, latency
        self._try_larger(now)

    def _try_smaller(self, now: float, *, quickly: bool = False) -> None:
        if self._phase != "smaller":
            self._phase, self._step, self._held = "smaller", 0, self.limit
        if quickly:
            self._step = len(SMALLER)
        if self._step < len(SMALLER):
            smaller = (self.limit - (self._step == 0)) / SMALLER[self._step]
        else:
            working = self.limit * self._unloaded / self.latency  # the others wait, if the model is as fast as before
            smaller = max(self.limit / 2, min(working, self.limit / HEADROOM))
        self._step += 1
        lower = max(1, min(self.limit - 1, round(smaller)))
        self._set(lower, now, ratio=min(1.8, self._held / lower))

    def _judge_smaller(self, now: float, rate: float) -> None:
        share = rate / self._base_rate
        if 1 - share <= USELESS * (1 - self.limit / self._held):
            self._wait = 1
            self._base_rate = max(rate, self._base_rate)
            if self.limit > FEW:
                self._try_smaller(now)
            else:
                self._hold(min(self._held, _with_headroom(self.limit)), now)
            return
        if self._step == 1:
            self._wait = min(2 * self._wait, MOST_HOLDS)
        at_once = min(self._held, self.limit / share)
        self._unloaded = self._base_latency * at_once / self._held
        self._hold(min(self._held, _with_headroom(at_once)), now)
        if at_once > 0.93 * self._held:  # nothing waited at the held limit: the server may take more
            self._hold_since = now - HOLD_SECONDS
            self._down_in = max(2, self._down_in)

    def _hold(self, limit: int, now: float) -> None:
        if self._phase == "smaller":
            self._down_in = self._wait
        self._phase, self._holds, self._hold_since = "hold", 0, now
        self._set(min(limit, self.cap), now)

    def _set(self, limit: int, since: float, *, ratio: float = 0.0) -> None:
        """Begin a round at a limit; ``ratio`` is the factor from or to the limit compared with (0: the next one)."""
        self.limit, self._since, self._begun = limit, since, None
        self._pause = max(3 * self._base_latency, 2 * ROUND_SECONDS) if self._base_latency else math.inf
        self._patience = math.inf
        self._clear()
        ratio = ratio or max(_with_headroom(limit) / limit, min(1.5, HEADROOM + self._noise))
        # A small difference needs many responses to show, even more if latencies differ much.
        most = 2 if self._unloaded == math.inf else 32  # at the start, speed matters more than certainty
        answers = min(round((1 + NOISE * self._noise) / (ratio - 1) ** 2), most * limit)
        if ratio >= 1.9:
            self._needed, self._early = max(limit, 4, answers), max(-(-3 * limit // 4), answers)
        else:
            self._needed = self._early = max(2 * limit, 8, answers)

    def _restart(self, now: float) -> None:
        """Begin another round at the same limit."""
        self._pause = max(3 * self._base_latency, 2 * ROUND_SECONDS)
        self._begun = self._last = now
        self._clear()
        self._patience = 2 * self._needed / self._base_rate if self._base_rate else math.inf

    def _clear(self) -> None:
        self._count = self._fresh = self._full = 0
        self._latencies = self._squares = 0.0

    def overloaded(self, started: float, now: float) -> None:
        """A request sent at ``started`` was refused, or timed out, at ``now``: the instance may be overloaded."""
        if started < self._decreased:
            return  # it was already in flight when the limit was lowered
        too_many = self._refusals.too_many(self.limit, self._answers)
        self._answers = 0
        if not too_many:
            return
        self._decreased = now
        if before := self._refusals.take_for_granted():
            self._ceiling, self._ceiling_seconds = self.cap + 1, CEILING_SECONDS[0]
            self._hold(max(self.limit, before), now)
            self._hold_since = now - HOLD_SECONDS
            return
        self._ceiling_until = now + self._ceiling_seconds
        if self._phase == "larger":  # the limit on trial was too high, the one before was not
            self._ceiling = self.limit
            self._ceiling_seconds = min(2 * self._ceiling_seconds, CEILING_SECONDS[1])
            limit = max(self._base, self.limit // 2)
        else:
            self._ceiling = self.limit + 1
            limit = max(1, int(self.limit * BACKOFF))
        self._hold(limit, now)
        self._hold_since = now - HOLD_SECONDS  # without a minimum hold: another limit is to be tried soon


def _with_headroom(at_once: float) -> int:
    return round(at_once * HEADROOM + 1)
