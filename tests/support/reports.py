"""The values of a report, made up, with text of the worst kind wherever somebody else may have written it."""

from __future__ import annotations

from typing import Any

import attrs

from sevplug.core import events
from sevplug.core.views import PageCounts
from sevplug.plugins.report.values import (
    ConsoleOutput,
    ImageInfo,
    Moment,
    Outcome,
    PluginRow,
    RangeMap,
    Report,
    Sample,
)

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\x1b[2J"
DIGEST = "3e" * 32
API = {"api_major": 1, "api_minor": 55, "build_id": 24}
COUNTS = tuple(PageCounts(32, 8, 24, 3) for _number in range(64))
MOMENTS = (
    Moment(0.1, 0.0, events.MACHINE_BUILT, {"memory": 1 << 28, "cpu": "EPYC", "plugins": ["sev"]}, "uninit"),
    Moment(0.2, 0.0, events.WARNING, {"text": EVIL}, "uninit"),
    Moment(
        0.3, 0.0, events.LAUNCH_START, {"policy": 5, "api_major": 1, "api_minor": 55, "build_id": 24}, "launch-update"
    ),
    Moment(
        0.4,
        0.0,
        events.LAUNCH_UPDATE,
        {"name": EVIL, "gpa": 0xFFC00000, "size": 4 << 20, "page_type": "normal"},
        "launch-update",
        "ab" * 32,
    ),
    Moment(0.5, 0.0, events.LAUNCH_MEASURE, {"digest": DIGEST, "measurement": "bWVhc3VyZW1lbnQ="}, "launch-secret"),
    Moment(0.6, 0.0, "run.phase", {"phase": "firmware", "text": "firmware runs"}, "running"),
    Moment(0.7, 0.1, "plugin.own", {"what": EVIL}, "running"),
    Moment(0.8, 0.2, events.RUN_END, {"result": "shutdown", "detail": EVIL, "seconds": 0.2}, "running"),
)


def report(**changes: Any) -> Report:
    made = Report(
        name=EVIL,
        version="0.1.0",
        python="3.11",
        started="2026-01-01 00:00:00",
        seconds=1.0,
        guest_seconds=0.2,
        outcome=Outcome("shutdown", EVIL, True),
        configuration=(("memory", "256 MiB"), ("serial port", EVIL)),
        images=(ImageInfo("firmware", EVIL, 4 << 20, "cd" * 32),),
        plugins=(PluginRow("sev", "0.1.0", "sevplug", True), PluginRow("theirs", "2.5", EVIL, False)),
        moments=MOMENTS,
        moments_left_out=0,
        counters={"fills": 1234567, "io": 4},
        summary={"sev": {"state": "running"}, "c_bit_checker": {"findings": [], "left_out": 0}},
        samples=(Sample(0.5, 0.0, "measure", (COUNTS,)), Sample(0.8, 0.2, "firmware", (COUNTS,))),
        ranges=(
            RangeMap("ram", 0, 1 << 28, True, 4 << 20, COUNTS),
            RangeMap("firmware", 0xFFC00000, 4 << 20, False, 1 << 16, COUNTS),
        ),
        consoles=(ConsoleOutput("Serial console", EVIL.encode(), b"", len(EVIL)),),
    )
    return attrs.evolve(made, **changes)
