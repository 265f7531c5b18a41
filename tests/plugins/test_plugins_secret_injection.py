"""The plug-in ``secret-injection``: what lands where, and what is refused without touching the guest."""

from __future__ import annotations

import base64
import hashlib
import hmac
import traceback
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from assembler import assemble
from machines import machine_with
from sev_guests import SECRET_AREA, SECRET_AREA_SIZE, TEK, TIK, SevGuest, sev_guest, sev_object

from sevplug.boot import embedded
from sevplug.core.errors import LaunchRefused
from sevplug.core.launch import LaunchSecret, LaunchState
from sevplug.plugins import secret_injection
from sevplug.sevapi.packet import seal_packet
from sevplug.sevapi.secret_table import build_secret_table
from sevplug.sevapi.status import Status

SECRET = b"the owner's secret"
ELSEWHERE = 0x40000
RAM = 16 << 20


def table() -> bytes:
    return build_secret_table({embedded.SECRET_GUID: SECRET})


def ram(guest: SevGuest) -> bytes:
    return guest.machine.memory.read(0, RAM, private=True)


def sealed(guest: SevGuest, plaintext: bytes, gpa: int | None = None) -> LaunchSecret:
    packet = seal_packet(plaintext, guest.context.keys, guest.measurement, iv=bytes(range(16)))
    return LaunchSecret(packet.header, packet.payload, gpa)


# -- where it lands --------------------------------------------------------------------------------------------------


def test_without_an_address_the_plaintext_lands_in_the_firmwares_area() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert guest.machine.inject_secret(guest.seal(SECRET)) == SECRET_AREA
        assert guest.machine.memory.read(SECRET_AREA, len(table()), private=True) == table()
        assert ram(guest).count(SECRET) == 1
        (told,) = guest.events.of("launch.secret")
        assert told == {"gpa": SECRET_AREA, "size": len(table())}


def test_with_an_address_the_plaintext_lands_there_and_nowhere_else() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert guest.machine.inject_secret(attrs.evolve(guest.seal(SECRET), gpa=ELSEWHERE)) == ELSEWHERE
        assert guest.machine.memory.read(ELSEWHERE, len(table()), private=True) == table()
        assert not any(guest.machine.memory.read(SECRET_AREA, SECRET_AREA_SIZE))


def test_an_address_of_zero_is_an_address() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert guest.machine.inject_secret(attrs.evolve(guest.seal(SECRET), gpa=0)) == 0
        assert guest.machine.memory.read(0, len(table()), private=True) == table()


def test_a_secret_may_fill_the_area_to_its_last_byte() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        plaintext = b"\x5a" * SECRET_AREA_SIZE
        assert guest.machine.inject_secret(sealed(guest, plaintext)) == SECRET_AREA
        assert guest.machine.memory.read(SECRET_AREA, SECRET_AREA_SIZE, private=True) == plaintext
        assert guest.machine.memory.read(SECRET_AREA + SECRET_AREA_SIZE, 16) == bytes(16)


def test_the_last_bytes_of_ram_are_a_place() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert guest.machine.inject_secret(sealed(guest, b"\x5a" * 32, RAM - 32)) == RAM - 32


def test_a_second_packet_may_follow() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        guest.machine.inject_secret(guest.seal(SECRET))
        guest.machine.inject_secret(sealed(guest, b"\x5a" * 16, ELSEWHERE))
        assert guest.machine.memory.read(SECRET_AREA, len(table()), private=True) == table()
        assert guest.machine.memory.read(ELSEWHERE, 16, private=True) == b"\x5a" * 16
        assert guest.machine.launch.state is LaunchState.SECRET


def test_the_guest_reads_its_secret() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        guest.machine.inject_secret(guest.seal(SECRET))
        guest.machine.run(timeout=10)
    assert f"[ok]   secret {embedded.SECRET_GUID}: {SECRET.decode()}\n" in guest.board.text


# -- what is refused -------------------------------------------------------------------------------------------------


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def wrong_mac(guest: SevGuest) -> LaunchSecret:
    good = guest.seal(SECRET)
    return attrs.evolve(good, header=flip(good.header, 51))


def changed_payload(guest: SevGuest) -> LaunchSecret:
    good = guest.seal(SECRET)
    return attrs.evolve(good, payload=flip(good.payload, 3))


def short_header(guest: SevGuest) -> LaunchSecret:
    good = guest.seal(SECRET)
    return attrs.evolve(good, header=good.header[:-1])


def odd_payload(guest: SevGuest) -> LaunchSecret:
    good = guest.seal(SECRET)
    return attrs.evolve(good, payload=good.payload[:-1])


def empty_payload(guest: SevGuest) -> LaunchSecret:
    return attrs.evolve(guest.seal(SECRET), payload=b"")


def compressed(guest: SevGuest) -> LaunchSecret:
    return flagged(guest, 1)


def reserved_flags(guest: SevGuest) -> LaunchSecret:
    return flagged(guest, 0x80)


def flagged(guest: SevGuest, flags: int) -> LaunchSecret:
    """A packet whose MAC is right for the flags that its header carries."""
    good = sealed(guest, b"\x5a" * 32)
    size = len(good.payload).to_bytes(4, "little")
    head = flags.to_bytes(4, "little") + good.header[4:20]
    mac = hmac.digest(
        guest.context.keys.tik, b"\x01" + head + size + size + good.payload + guest.measurement.mac, hashlib.sha256
    )
    return LaunchSecret(head + mac, good.payload)


def of_another_launch(guest: SevGuest) -> LaunchSecret:
    with sev_guest() as other:
        other.machine.start_launch()
        return other.seal(SECRET)


def beyond_ram(guest: SevGuest) -> LaunchSecret:
    return sealed(guest, b"\x5a" * 32, RAM - 16)


def nowhere(guest: SevGuest) -> LaunchSecret:
    return sealed(guest, b"\x5a" * 32, 0x9000_0000)


def negative(guest: SevGuest) -> LaunchSecret:
    return sealed(guest, b"\x5a" * 32, -16)


def odd_address(guest: SevGuest) -> LaunchSecret:
    return sealed(guest, b"\x5a" * 32, ELSEWHERE + 8)


REFUSED: dict[Callable[[SevGuest], LaunchSecret], Status] = {
    wrong_mac: Status.BAD_MEASUREMENT,
    changed_payload: Status.BAD_MEASUREMENT,
    of_another_launch: Status.BAD_MEASUREMENT,
    short_header: Status.INVALID_LENGTH,
    odd_payload: Status.INVALID_LENGTH,
    empty_payload: Status.INVALID_LENGTH,
    compressed: Status.UNSUPPORTED,
    reserved_flags: Status.INVALID_PARAM,
    beyond_ram: Status.INVALID_ADDRESS,
    nowhere: Status.INVALID_ADDRESS,
    negative: Status.INVALID_ADDRESS,
    odd_address: Status.INVALID_ADDRESS,
}


def refusal(guest: SevGuest, packet: LaunchSecret) -> LaunchRefused:
    """The exception the packet ends in; the guest's memory is the same before and after, and nothing is told."""
    before = ram(guest)
    with pytest.raises(LaunchRefused) as refused:
        guest.machine.inject_secret(packet)
    assert ram(guest) == before
    assert guest.events.of("launch.secret") == []
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(("make", "status"), REFUSED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_packet_is_refused_with_the_firmwares_status(
    make: Callable[[SevGuest], LaunchSecret], status: Status
) -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert refusal(guest, make(guest)).status == status
        assert guest.machine.launch.state is LaunchState.SECRET
        assert guest.machine.inject_secret(guest.seal(SECRET)) == SECRET_AREA


def test_a_secret_that_is_too_large_for_the_area_is_refused_with_both_sizes() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        refused = refusal(guest, sealed(guest, bytes(SECRET_AREA_SIZE + 16)))
    assert str(refused) == f"SEV: the secret has {SECRET_AREA_SIZE + 16} bytes, the firmware's area at 0x10000 3072"
    assert refused.status is None


def test_a_large_secret_may_go_to_an_address() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        assert guest.machine.inject_secret(sealed(guest, b"\x5a" * 16384, ELSEWHERE)) == ELSEWHERE


def test_firmware_without_an_area_needs_an_address() -> None:
    with sev_guest(firmware=assemble("out 0xf4, al; hlt")) as guest:
        guest.machine.start_launch()
        refused = refusal(guest, guest.seal(SECRET))
        assert str(refused) == "SEV: no secret area found in OVMF, gpa must be specified."
        assert guest.machine.inject_secret(attrs.evolve(guest.seal(SECRET), gpa=ELSEWHERE)) == ELSEWHERE


def test_before_the_launch_there_is_nobody_to_take_secrets() -> None:
    with sev_guest() as guest:
        refused = refusal(guest, LaunchSecret(bytes(52), bytes(16)))
    assert str(refused) == "the secret is refused: no enabled plug-in takes secrets for this guest"


def test_a_running_guest_takes_no_secrets() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        packet = guest.seal(SECRET)
        guest.machine.run(timeout=10)
        refused = refusal(guest, packet)
    assert refused.status == Status.INVALID_GUEST_STATE
    assert "LAUNCH_SECRET: the guest is in state running, the command needs launch-secret" in str(refused)


def test_a_guest_that_was_not_measured_takes_no_secrets() -> None:
    with sev_guest(without=("measurement",)) as guest:
        guest.machine.start_launch()
        refused = refusal(guest, LaunchSecret(bytes(52), bytes(16)))
    assert refused.status == Status.INVALID_GUEST_STATE


def test_a_plain_guest_takes_no_secrets() -> None:
    with machine_with(assemble("hlt"), secret_injection) as (machine, _board):
        machine.start_launch()
        with pytest.raises(LaunchRefused, match=r"no enabled plug-in takes secrets for this guest$"):
            machine.inject_secret(LaunchSecret(bytes(52), bytes(16)))


def test_without_the_plug_in_secrets_are_refused() -> None:
    with sev_guest(without=("secret-injection",)) as guest:
        guest.machine.start_launch()
        refused = refusal(guest, guest.seal(SECRET))
    assert str(refused) == "the secret is refused: no enabled plug-in takes secrets for this guest"


# -- what nobody may read --------------------------------------------------------------------------------------------


def spellings(data: bytes) -> list[str]:
    """The forms in which bytes could slip into a text."""
    return [data.hex(), data.hex().upper(), repr(data)[2:-1], base64.b64encode(data).decode(), str(list(data))[1:-1]]


def test_keys_and_secrets_are_in_no_event_no_repr_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "tik.bin").write_bytes(TIK)
    (tmp_path / "tek.bin").write_bytes(TEK)
    chosen = sev_object(tik=str(tmp_path / "tik.bin"), tek=str(tmp_path / "tek.bin"))
    texts: list[str] = []
    with sev_guest(chosen) as guest:
        guest.machine.start_launch()
        for make in REFUSED:
            try:
                guest.machine.inject_secret(make(guest))
            except LaunchRefused as error:
                texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
        packet = guest.seal(SECRET)
        guest.machine.inject_secret(packet)
        run = guest.machine.run(timeout=10)
        machine = guest.machine
        for value in (
            machine, machine.config, machine.launch, guest.context, guest.context.keys, packet, run,
            machine.launch.regions, *guest.machine.plugins.get_plugins(),
        ):  # fmt: skip
            texts += [repr(value), str(value)]
        texts.append(repr(machine.summary(run)))
        for event, fields in guest.events.seen:
            texts.append(f"{event} {fields!r} {dict(fields)}")
    everything = "\n".join(texts)
    assert "launch.secret" in everything
    for hidden in (TIK, TEK, SECRET):
        for spelling in spellings(hidden):
            assert spelling not in everything


# -- what the host sees ----------------------------------------------------------------------------------------------


def test_the_secret_and_the_firmware_appear_nowhere_in_what_the_host_can_read() -> None:
    with sev_guest() as guest:
        guest.machine.start_launch()
        guest.machine.inject_secret(guest.seal(SECRET))
        assert guest.machine.run(timeout=10).result == "shutdown"  # it has read its secret
        ranges = guest.machine.memory.ranges
        dump = b"".join(guest.machine.memory.read(entry.gpa, entry.size, dma=False) for entry in ranges)
        firmware = guest.machine.launch.regions[0].data
        assert SECRET not in dump
        assert embedded.SECRET_GUID.bytes_le not in dump
        blocks = {firmware[at : at + 16] for at in range(0, len(firmware), 16)} - {bytes(16), b"\xff" * 16}
        assert not [block for block in blocks if block in dump]
        assert guest.machine.memory.read(SECRET_AREA, len(table()), private=True)[:16] == table()[:16]
