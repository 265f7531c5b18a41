"""The calendar in the MC146818's register formats: BCD or binary, 24 or 12 hours.  Pure functions."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from datetime import UTC, datetime, timedelta

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR = range(6, 10)
CENTURY = 0x32
BINARY, HOURS_24 = 0x04, 0x02  # of register B
_PM = 0x80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS = 86400


def encode(number: int, mode: int) -> int:
    """0..99 as register B ``mode`` wants it."""
    return number if mode & BINARY else number // 10 << 4 | number % 10


def decode(value: int, mode: int) -> int:
    """The inverse of `encode`."""
    return value if mode & BINARY else (value >> 4) * 10 + (value & 0x0F)


def encode_hour(hour: int, mode: int) -> int:
    """Hour 0..23; in 12-hour mode bit 7 means afternoon."""
    if mode & HOURS_24:
        return encode(hour, mode)
    return encode(hour % 12 or 12, mode) | (_PM if hour >= 12 else 0)


def decode_hour(value: int, mode: int) -> int:
    """The inverse of `encode_hour`."""
    if mode & HOURS_24:
        return decode(value, mode)
    return decode(value & 0x7F, mode) % 12 + (12 if value & _PM else 0)


def store(registers: MutableSequence[int], seconds: int, mode: int) -> None:
    """Write ``seconds`` since 1970-01-01 UTC into the time registers."""
    now = _EPOCH + timedelta(seconds=seconds)
    registers[SECONDS] = encode(now.second, mode)
    registers[MINUTES] = encode(now.minute, mode)
    registers[HOURS] = encode_hour(now.hour, mode)
    registers[WEEKDAY] = encode(now.isoweekday() % 7 + 1, mode)
    registers[DAY] = encode(now.day, mode)
    registers[MONTH] = encode(now.month, mode)
    registers[YEAR] = encode(now.year % 100, mode)
    registers[CENTURY] = encode(now.year // 100, mode)


def load(registers: Sequence[int], mode: int) -> int:
    """Seconds since 1970-01-01 UTC from the time registers; days and hours beyond their range carry over."""
    year = decode(registers[CENTURY], mode) * 100 + decode(registers[YEAR], mode)
    month = decode(registers[MONTH], mode)
    base = datetime(min(max(year, 1970), 9998), min(max(month, 1), 12), 1, tzinfo=UTC)
    moment = base + timedelta(
        days=decode(registers[DAY], mode) - 1,
        hours=decode_hour(registers[HOURS], mode),
        minutes=decode(registers[MINUTES], mode),
        seconds=decode(registers[SECONDS], mode),
    )
    return (moment - _EPOCH) // timedelta(seconds=1)


def next_alarm(registers: Sequence[int], seconds: int, mode: int) -> int | None:
    """The first second after ``seconds`` that matches the alarm registers (0xC0 and above match any); None if never."""

    def wanted(register: int, limit: int, value: int) -> range:
        if registers[register] & 0xC0 == 0xC0:
            return range(limit)
        return range(value, value + 1) if value < limit else range(0)

    hours = wanted(HOURS_ALARM, 24, decode_hour(registers[HOURS_ALARM], mode))
    minutes = wanted(MINUTES_ALARM, 60, decode(registers[MINUTES_ALARM], mode))
    whole = wanted(SECONDS_ALARM, 60, decode(registers[SECONDS_ALARM], mode))
    if not hours or not minutes or not whole:
        return None
    midnight = seconds - seconds % _DAY_SECONDS
    for day in (midnight, midnight + _DAY_SECONDS):
        for hour in hours:
            if day + (hour + 1) * 3600 <= seconds:
                continue
            for minute in minutes:
                start = day + hour * 3600 + minute * 60
                if start + 59 <= seconds:
                    continue
                for second in whole:
                    if start + second > seconds:
                        return start + second
    return None
