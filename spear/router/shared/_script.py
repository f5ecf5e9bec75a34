"""What is asked of Redis: one script for a number of limits at a time, so that nothing comes in between.

Each limit is a hash: the number of a slice of time (Redis's clock) → what was taken in it, leases included. Beside them
stand the processes that are alive (a sorted set by the time they were last heard of) and a mark that names the data: if
it is another one than before, the data was lost. Then nothing is leased for a while, until every process has told what
it has used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from typing import Final

import orjson

from spear.router.limits import Quota

from ._meter import Answered, Asked

SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local asked = cjson.decode(ARGV[1])
local mark = redis.call('HGET', KEYS[2], 'mark')
if not mark then
  mark = asked.mark
  redis.call('HSET', KEYS[2], 'mark', mark, 'hold', '0')
end
local known = mark == asked.born
if asked.born ~= '' and not known then
  redis.call('HSET', KEYS[2], 'hold', tostring(now + asked.hold_s))
end
local hold = now < tonumber(redis.call('HGET', KEYS[2], 'hold') or '0')
if asked.leaving then
  redis.call('ZREM', KEYS[1], asked.node)
else
  redis.call('ZADD', KEYS[1], now, asked.node)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - asked.alive_s)
local nodes = redis.call('ZCARD', KEYS[1])
local answers = {}
if known or asked.born == '' then
  for position, one in ipairs(asked.limits) do
    local key = KEYS[position + 2]
    local slice = math.floor(now / one.slice_s)
    local function take_out(number, amount)
      local there = tonumber(redis.call('HGET', key, number) or '0')
      local out = math.min(there, amount)
      if out > 0 then redis.call('HINCRBYFLOAT', key, number, string.format('%.17g', -out)) end
      return math.max(0, out)
    end
    for _, pair in ipairs(one.back) do take_out(string.format('%d', pair[1]), pair[2]) end
    local moved = 0
    if one.moved > 0 then moved = take_out(string.format('%d', one.slice), one.moved) end
    local used, oldest = 0, slice
    local all = redis.call('HGETALL', key)
    for at = 1, #all, 2 do
      local number, amount = tonumber(all[at]), tonumber(all[at + 1])
      if number < slice - one.slices or amount < 0 then
        redis.call('HDEL', key, all[at])  -- over; or nobody's: what is taken later would vanish in it
      elseif amount > 0 then
        used = used + amount
        oldest = math.min(oldest, number)
      end
    end
    used = used + moved + one.forced
    local granted = 0
    if not hold and not asked.leaving then
      local free = math.max(0, one.limit - used)
      local target = math.max(one.want, (free + moved) * one.share / math.max(1, nodes))
      granted = math.max(0, math.min(free, target - moved))
      if one.whole then granted = math.floor(granted + moved + 0.000001) - moved end
      granted = math.max(0, granted)
    end
    local added = moved + one.forced + granted
    if added > 0 then
      redis.call('HINCRBYFLOAT', key, string.format('%d', slice), string.format('%.17g', added))
      redis.call('PEXPIRE', key, math.ceil((one.slices + 2) * one.slice_s * 1000))
    end
    answers[position] = {
      string.format('%d', slice), string.format('%.17g', moved), string.format('%.17g', granted),
      string.format('%.17g', used + granted),
      string.format('%.17g', math.max(0, (oldest + one.slices + 1) * one.slice_s - now))
    }
  end
end
return cjson.encode({mark = mark, hold = hold, nodes = nodes, answers = answers})
"""


class BadAnswer(ValueError):
    """Redis answered what this script does not."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer. `mark` names the data; where `hold`, nothing is leased."""

    mark: str
    hold: bool
    nodes: int
    answers: tuple[Answered, ...]


def key_of(prefix: str, quota: Quota) -> str:
    """The subject may be anybody's text, so that it stands there as a hash. The braces keep all keys on one server of a
    cluster."""
    text = repr((quota.subject, quota.quantity, float(quota.limit), float(quota.period), quota.shape))
    return f"{prefix}{{limits}}:{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def nodes_key(prefix: str) -> str:
    return f"{prefix}{{limits}}:nodes"


def mark_key(prefix: str) -> str:
    return f"{prefix}{{limits}}:mark"


def question(
    asked: Sequence[tuple[Quota, Asked]], *, node: str, mark: str, born: str | None, lease_s: float, leaving: bool
) -> bytes:
    limits = [{**each._asdict(), "whole": quota.quantity == "requests"} for quota, each in asked]
    return orjson.dumps(
        {
            "node": node,
            "mark": mark,
            "born": born or "",
            "alive_s": 3 * lease_s,
            "hold_s": lease_s,
            "leaving": leaving,
            "limits": limits,
        }
    )


def read_answer(data: object, count: int) -> Round:
    """Raises `BadAnswer`. `count`: how many limits were asked about; an answer of a script that found other data than
    expected has none."""
    if not isinstance(data, str | bytes):
        raise BadAnswer("no text")
    try:
        found = orjson.loads(data)
        answers = found["answers"] or []
        read = tuple(_read(each) for each in answers)
        made = Round(_text(found["mark"]), bool(found["hold"]), max(1, int(found["nodes"])), read)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise BadAnswer("not an answer of the script") from None
    if len(read) not in {0, count}:
        raise BadAnswer(f"{len(read)} limits, not {count}")
    return made


def _read(answer: list[str]) -> Answered:
    number, moved, granted, used, frees_in = answer
    amounts = [float(each) for each in (moved, granted, used, frees_in)]
    if not all(isfinite(each) and each >= 0 for each in amounts):
        raise ValueError("an amount that is none")
    return Answered(int(number), *amounts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
