"""A report as one HTML page that needs nothing else: no network, no scripts, no fonts.  Pure.

Jinja2 fills the template and escapes whatever is put into it, text of guests above all; nothing here makes markup.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import attrs

from sevplug.core import events
from sevplug.core.result import RESULTS
from sevplug.plugins import words
from sevplug.plugins.phases import PHASE, PHASES
from sevplug.plugins.report import memory_map
from sevplug.plugins.report.terminal_text import Span, lines_of
from sevplug.plugins.report.values import ConsoleOutput, Moment, RangeMap, Report

if TYPE_CHECKING:
    import jinja2

# What a report says of results that only it knows.
_RESULTS: Final = {
    **RESULTS,
    "failed": "an error ended it",
    "unfinished": "the machine was put away before the guest had come to an end",
}
_TABLE_ROWS = 200
_TITLES: Final = {
    events.MACHINE_BUILT: "Machine built",
    events.LAUNCH_START: "Launch started",
    events.LAUNCH_UPDATE: "Measured",
    events.LAUNCH_MEASURE: "Launch measured",
    events.OWNER_VERIFIED: "Owner verified",
    events.LAUNCH_SECRET: "Secret injected",
    events.LAUNCH_FINISH: "Launch finished",
    events.RUN_RESUME: "The guest runs",
    events.RUN_STOP: "The guest is stopped",
    events.GUEST_RESET: "Reset",
    events.GUEST_SHUTDOWN: "Shutdown",
    events.RUN_END: "End",
    events.RUN_RAM: "RAM's digest",
}


@attrs.frozen
class Line:
    """A line of the timeline.  ``kind``: launch, run, phase or end; ``details``: (name, text) rows below it."""

    seconds: float
    guest_seconds: float
    title: str
    text: str
    kind: str
    state: str = ""
    details: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class PhaseTime:
    """A phase and how long it took, in seconds of wall time and of the guest's."""

    text: str
    begin: float
    seconds: float
    guest_seconds: float


@attrs.frozen
class Hole:
    """Addresses ``[gpa, end)`` at which nothing is."""

    gpa: int
    end: int


@attrs.frozen
class Screen:
    """A port's output, ready to be shown; ``rest``: the lines behind ``left_out`` bytes that are not here."""

    name: str
    lines: list[tuple[Span, ...]]
    rest: list[tuple[Span, ...]]
    left_out: int
    total: int


def render(report: Report) -> str:
    """``report`` as an HTML document."""
    measured = _fields(report, events.LAUNCH_MEASURE)
    headline, subline = headlines(report)
    context: dict[str, Any] = {
        "report": report,
        "headline": headline,
        "subline": subline,
        "facts": facts(report),
        "digest": measured.get("digest"),
        "measurement": measured.get("measurement"),
        "timeline": [timeline_line(moment) for moment in report.moments if moment.event != events.WARNING],
        "warnings": [moment for moment in report.moments if moment.event == events.WARNING],
        "phases": phase_times(report),
        "findings": report.summary.get("c_bit_checker"),
        "places": places(report.ranges),
        "rows_of": memory_map.map_rows,
        "table_of": functools.partial(memory_map.table_rows, most=_TABLE_ROWS),
        "looks": memory_map.LOOKS,
        "names": {"ram": "RAM", "ram-high": "RAM above 4 GiB", "firmware": "Firmware"},
        "columns": memory_map.COLUMNS,
        "samples": report.samples,
        "time_maps": memory_map.time_maps(report.samples),
        "spans": memory_map.phase_spans(report.samples),
        "phase_words": PHASES,
        "ticks": _ticks(report),
        "amounts": memory_map.amounts(report.samples) if report.samples else None,
        "total": report.samples[-1].total if report.samples else None,
        "begins": [sample for before, sample in pairwise([None, *report.samples]) if _begins(before, sample)],
        "consoles": [screen(console) for number, console in enumerate(report.consoles) if not number or console.total],
    }
    return _template().render(context)


def headlines(report: Report) -> tuple[str, str]:
    """How it ended: what its result means, and what more is known of it; the second may say all of the first."""
    says, detail = _RESULTS.get(report.outcome.result, ""), report.outcome.detail
    return (detail, "") if detail.startswith(says) or not says else (says, detail)


def facts(report: Report) -> list[tuple[str, str]]:
    """The few things that everybody looks for first."""
    start, summary = _fields(report, events.LAUNCH_START), report.summary.get("sev", {})
    found = [("Began (UTC)", report.started), ("Took", f"{report.seconds:.3f} s")]
    found.append(("Guest's time", f"{report.guest_seconds:.3f} s"))
    if "policy" in start:
        found.append(("Policy", f"{start['policy']:#x}"))
    if "api_major" in start:
        found.append(("Firmware API", words.api(start)))
    state = summary.get("state") or (report.moments[-1].state if report.moments else "")
    found.append(("Launch state", state if start else "plain guest, no launch"))
    verified = any(moment.event == events.OWNER_VERIFIED for moment in report.moments)
    secrets = sum(moment.event == events.LAUNCH_SECRET for moment in report.moments)
    if start:
        found.append(("Measurement", "verified by the owner" if verified else "not verified here"))
        found.append(("Secrets injected", str(secrets)))
    if "ram_sha256" in report.summary:
        found.append(("SHA-256 of RAM", str(report.summary["ram_sha256"])))
    return found


def timeline_line(moment: Moment) -> Line:
    """One moment as a line."""
    fields = moment.fields
    kind = (
        "launch"
        if moment.event.startswith(("launch.", "owner."))
        else {PHASE: "phase", events.RUN_END: "end"}.get(moment.event, "run")
    )
    title = _TITLES.get(moment.event, moment.event)
    text = words.tell(moment.event, fields)
    details: list[tuple[str, str]] = []
    match moment.event:
        case events.LAUNCH_UPDATE:
            text = f"{fields['name']}: {words.size(fields['size'])} at {fields['gpa']:#x}"
            details = [("page type", str(fields["page_type"])), ("SHA-256", moment.sha256 or "")]
        case events.LAUNCH_MEASURE:
            text = ""
            details = [("launch digest", fields["digest"]), ("launch measurement", fields["measurement"])]
        case events.OWNER_VERIFIED:
            details = [("expected digest", fields["digest"])]
        case events.GUEST_RESET | events.GUEST_SHUTDOWN:
            text = text.partition(", ")[2] or text
        case events.LAUNCH_SECRET:
            text = f"{fields['size']} bytes at {fields['gpa']:#x}"
        case _ if kind == "phase":
            title, text = f"{text[:1].upper()}{text[1:]}", ""
        case events.RUN_RESUME | events.RUN_STOP | events.LAUNCH_FINISH:
            text = ""
    state = moment.state if kind == "launch" else ""
    return Line(moment.seconds, moment.guest_seconds, title, words.printable(text), kind, state, tuple(details))


def phase_times(report: Report) -> list[PhaseTime]:
    """How long each phase took; the building of the machine is the first."""
    begins = [(PHASES["build"], 0.0, 0.0)]
    begins += [
        (str(moment.fields["text"]), moment.seconds, moment.guest_seconds)
        for moment in report.moments
        if moment.event == PHASE
    ]
    ends = [moment for moment in report.moments if moment.event == events.RUN_END]
    end = (ends[-1].seconds, ends[-1].guest_seconds) if ends else (report.seconds, report.guest_seconds)
    return [
        PhaseTime(text, begin, later - begin, guest_later - guest)
        for (text, begin, guest), (_text, later, guest_later) in pairwise([*begins, ("", *end)])
    ]


def places(ranges: tuple[RangeMap, ...]) -> list[RangeMap | Hole]:
    """The ranges, and the holes between them."""
    found: list[RangeMap | Hole] = []
    at = 0
    for entry in ranges:
        if entry.gpa > at:
            found.append(Hole(at, entry.gpa))
        found.append(entry)
        at = entry.end
    return found


def screen(console: ConsoleOutput) -> Screen:
    """A port's output as coloured lines."""
    lines, rest = lines_of(console.head), lines_of(console.tail)
    return Screen(console.name, lines, rest, console.left_out, console.total)


def _fields(report: Report, event: str) -> Mapping[str, Any]:
    return next((moment.fields for moment in report.moments if moment.event == event), {})


def _begins(before: Any, sample: Any) -> bool:
    return before is None or before.phase != sample.phase


def _ticks(report: Report) -> list[str]:
    samples = report.samples
    if not samples:
        return []
    places = sorted({0, *(len(samples) * quarter // 4 for quarter in (1, 2, 3)), len(samples) - 1})
    return [f"{samples[place].seconds:.2f} s" for place in places]


# -- what the template calls -----------------------------------------------------------------------------------------


def address(gpa: int) -> str:
    """A guest-physical address, with a mark between its halves once it has more than eight digits."""
    return f"{gpa:#x}" if gpa < 1 << 32 else f"0x{gpa >> 32:x}_{gpa & 0xFFFFFFFF:08x}"


def amount(count: int) -> str:
    """Bytes in the unit that leaves three digits before the point at most."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"


def grouped(count: int) -> str:
    """A number with a thin space between its thousands."""
    return f"{count:,}".replace(",", "\u202f")


def block(text: str) -> str:
    """Lines of text without control characters."""
    return "\n".join(words.printable(line) for line in text.splitlines())


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    here = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (here / name).read_text(encoding="utf-8")),
    )
    environment.filters.update(address=address, amount=amount, grouped=grouped, block=block)
    environment.filters.update(size=words.size, printable=words.printable)
    environment.tests["hole"] = lambda place: isinstance(place, Hole)
    return environment.get_template("page.html")
