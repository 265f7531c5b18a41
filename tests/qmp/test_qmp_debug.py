"""Extensions of QMP: the private view of memory where the policy allows it, and the pages by form."""

from __future__ import annotations

import base64
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from qmp_support import MIB, Client, real_machine, serving, spinning_guest

from sevplug.core.config import ObjectSpec
from sevplug.core.machine import Machine
from sevplug.plugins.sev import SevPlugin

GPA = 0x4000
TEXT = b"sixteen bytes!!!" * 3


def guest(path: Path, policy: int, encrypt: str = "on") -> AbstractContextManager[Machine]:
    properties = {"cbitpos": "51", "reduced-phys-bits": "1", "policy": hex(policy), "encrypt-memory": encrypt}
    spec = ObjectSpec("sev-emulated", "sev0", properties)
    return real_machine(f"unix:{path}", SevPlugin(), boot=spinning_guest(), memory=MIB, objects=(spec,))


def test_a_guest_that_may_be_debugged_shows_its_private_memory(tmp_path: Path) -> None:
    with guest(tmp_path / "q", 0) as machine, Client(tmp_path / "q").negotiate() as client:
        text = base64.b64encode(TEXT).decode()
        assert client.execute("sevplug-debug-write", gpa=GPA + 8, data=text) == {}
        assert client.execute("sevplug-debug-read", gpa=GPA + 8, size=len(TEXT)) == {"data": text}
        assert machine.memory.read(GPA + 8, len(TEXT)) != TEXT


def test_a_policy_without_debugging_is_honoured(tmp_path: Path) -> None:
    with guest(tmp_path / "q", 1) as machine, Client(tmp_path / "q").negotiate() as client:
        before = machine.memory.read(GPA, 16)
        says = "SEV: DBG_{}: ret=-5 fw_error=7 'Policy is not allowed'"
        read = client.refusal("sevplug-debug-read", gpa=GPA, size=16)
        write = client.refusal("sevplug-debug-write", gpa=GPA, data="QUFBQQ==")
        assert (read, write) == (says.format("DECRYPT"), says.format("ENCRYPT"))
        assert machine.memory.read(GPA, 16) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"gpa": GPA, "size": 0}, "SEV: DBG_DECRYPT: ret=-5 fw_error=4 'Buffer too small'"),
        ({"gpa": 0x7000_0000, "size": 16}, "SEV: DBG_DECRYPT: ret=-5 fw_error=9 'Invalid address'"),
        ({"gpa": GPA}, "Parameter 'size' is missing"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, arguments: dict[str, int], says: str) -> None:
    with guest(tmp_path / "q", 0), Client(tmp_path / "q").negotiate() as client:
        assert client.refusal("sevplug-debug-read", **arguments) == says


def test_data_that_is_not_base64_is_refused(tmp_path: Path) -> None:
    with guest(tmp_path / "q", 0), Client(tmp_path / "q").negotiate() as client:
        assert client.refusal("sevplug-debug-write", gpa=GPA, data="%") == "Parameter 'data' expects base64"


def test_the_pages_and_their_map_can_be_asked_for(tmp_path: Path) -> None:
    with guest(tmp_path / "q", 0), Client(tmp_path / "q").negotiate() as client:
        client.execute("sevplug-debug-write", gpa=GPA, data="QUFBQQ==")
        found = client.execute("sevplug-query-memory")
    assert (found["private"], found["shared"], found["untouched"], found["conversions"]) == (1, 0, MIB // 4096 - 1, 0)
    assert found["map"] == [
        {"gpa": 0, "pages": 4, "form": "untouched", "conversions": 0},
        {"gpa": GPA, "pages": 1, "form": "private", "conversions": 0},
        {"gpa": GPA + 4096, "pages": MIB // 4096 - 5, "form": "untouched", "conversions": 0},
    ]


def test_without_encryption_there_is_nothing_to_tell(tmp_path: Path) -> None:
    with guest(tmp_path / "q", 0, encrypt="off"), Client(tmp_path / "q").negotiate() as client:
        assert client.refusal("sevplug-query-memory") == "memory is not encrypted"


def test_a_plain_guest_has_no_private_memory(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/q"), Client(tmp_path / "q").negotiate() as client:
        assert client.refusal("sevplug-debug-read", gpa=GPA, size=16) == "SEV is not enabled"
