"""The key derivation."""

import pytest

from sevplug.sevapi.kdf import derive


def test_the_known_vector() -> None:
    # virtee/sev, src/session/key.rs.
    master = derive(bytes(16), "sev-master-secret", bytes(16))
    assert master.hex() == "ab4d269fcc62bedb4511d56c386ce706"


def test_label_context_key_and_length_all_count() -> None:
    derived = {
        derive(bytes(16), "sev-kek"),
        derive(bytes(16), "sev-kik"),
        derive(b"k" * 16, "sev-kek"),
        derive(bytes(16), "sev-kek", b"context"),
        derive(bytes(16), "sev-kek", size=32)[:16],
    }
    assert len(derived) == 5


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 80])
def test_any_length_is_derived(size: int) -> None:
    assert len(derive(b"key", "label", size=size)) == size
