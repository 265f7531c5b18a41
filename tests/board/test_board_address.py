"""Where a server listens: what is understood, and what each refusal says."""

from __future__ import annotations

import pytest

from sevplug.board.chardev.address import ServerOption, TcpAddress, UnixAddress, parse
from sevplug.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address", "wait"),
    [
        ("unix:/run/q", UnixAddress("/run/q"), False),
        ("unix:q,wait=on", UnixAddress("q"), True),
        ("unix:q,server=on,wait=off", UnixAddress("q"), False),
        ("unix:q,server,nowait", UnixAddress("q"), False),
        ("unix:q,server", UnixAddress("q"), True),
        ("unix:q,server=on", UnixAddress("q"), True),
        ("unix:a,,b:c", UnixAddress("a,b:c"), False),
        ("tcp:127.0.0.1:4444", TcpAddress("127.0.0.1", 4444), False),
        ("tcp:127.1.2.3:0,server=on,wait=off", TcpAddress("127.1.2.3", 0), False),
        ("tcp:localhost:1", TcpAddress("127.0.0.1", 1), False),
        ("tcp:[::1]:1", TcpAddress("::1", 1), False),
    ],
)
def test_an_address_in_qemus_spelling_is_understood(text: str, address: UnixAddress | TcpAddress, wait: bool) -> None:
    assert parse("--qmp", text) == ServerOption(address, wait)


@pytest.mark.parametrize("text", ["unix:/run/q", "tcp:127.0.0.1:4444", "tcp:[::1]:0"])
def test_an_address_is_printed_as_it_is_written(text: str) -> None:
    assert str(parse("--qmp", text).address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected unix:PATH or tcp:127.0.0.1:PORT"),
        ("stdio", "expected unix:PATH or tcp:127.0.0.1:PORT"),
        ("vsock:1:2", "expected unix:PATH or tcp:127.0.0.1:PORT"),
        ("unix:", "expected a path behind unix:"),
        ("unix:,server=on", "expected a path behind unix:"),
        ("unix:/" + "x" * 107, "the path has 108 bytes, expected at most 107"),
        ("unix:a\0b", "expected no NUL"),
        ("unix:q,server=off", "expected server=on"),
        ("unix:q,noserver", "expected server=on"),
        ("unix:q,wait=perhaps", "wait=perhaps, expected on or off"),
        ("unix:q,abstract=on", "unknown option 'abstract=on'"),
        ("tcp:127.0.0.1", "expected tcp:HOST:PORT"),
        ("tcp:127.0.0.1:http", "expected tcp:HOST:PORT"),
        ("tcp:127.0.0.1:65536", "a port from 0 to 65535"),
        ("tcp:0.0.0.0:1", "0.0.0.0, expected a loopback address"),
        ("tcp:192.168.0.1:1", "192.168.0.1, expected a loopback address"),
        ("tcp:[::]:1", "::, expected a loopback address"),
        ("tcp:example.com:1", "example.com, expected a loopback address"),
        ("tcp::1", "no host, expected a loopback address"),
    ],
)
def test_any_other_value_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse("--qmp", text)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("--qmp ")
