"""``-object sev-emulated`` and QEMU's ``sev-guest``: their properties, checked before a machine depends on them.

They differ in where keys come from: the first takes them in files (``tik``, ``tek``), both in an owner's session
(``dh-cert-file``, ``session-file``).  Without either, the first has keys that everybody knows, the second such that
nobody does, as hardware has it.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sevplug.core.config import ObjectSpec
from sevplug.core.cpumodel import PHYSICAL_BITS
from sevplug.core.errors import ConfigError
from sevplug.sevapi.encodings import decode_base64
from sevplug.sevapi.errors import SevApiError
from sevplug.sevapi.files import read_at_most
from sevplug.sevapi.keys import KEY_SIZE, TransportKeys, read_key
from sevplug.sevapi.policy import Policy, PolicyBit

TYPE = "sev-emulated"
TYPES = (TYPE, "sev-guest")
DEFAULT_POLICY = 0x1  # NODBG, as QEMU's sev-guest has it
ZERO_KEY = bytes(KEY_SIZE)
_KEYS = ("tik", "tek")
# QEMU's words for a property that is on or off.
SWITCH: Mapping[str, bool] = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
# What sev-guest has that means something to the host's kernel only.
_OF_HARDWARE = ("sev-device", "handle", "legacy-vm-type")
_LIMIT = 1 << 16
# The highest address bit of a page-table entry that is not an ignored or protection bit.
_HIGHEST_C_BIT = 51
# The object of a guest for which nobody named one.
DEFAULT_SPEC = ObjectSpec(TYPE, "sev0", {"cbitpos": str(_HIGHEST_C_BIT), "reduced-phys-bits": "1"})


@attrs.frozen
class SevObject:
    """The checked properties.

    ``c_bit``: position of the C-bit in an address.  ``reduced_bits``: how many address bits memory encryption costs.
    ``kernel_hashes``: whether the hashes of a directly booted kernel are launched too.  ``encrypt_memory``: whether
    memory has a private and a shared form.  ``keys``: None where they are not given.  ``certificate`` and ``session``:
    the owner's, as they came.
    """

    id: str
    c_bit: int
    reduced_bits: int
    policy: Policy
    keys: TransportKeys | None = attrs.field(repr=False)
    kernel_hashes: bool
    encrypt_memory: bool
    defaulted_keys: tuple[str, ...]
    certificate: bytes | None = attrs.field(default=None, repr=False)
    session: bytes | None = attrs.field(default=None, repr=False)


def parse(spec: ObjectSpec) -> SevObject:
    """Make sense of ``spec``; `ConfigError` names the property that does not fit and what was expected."""
    properties = dict(spec.properties)
    where = f"object {spec.type} (id={spec.id})"
    c_bit = _number(properties, where, "cbitpos", PHYSICAL_BITS, _HIGHEST_C_BIT)
    reduced = _number(properties, where, "reduced-phys-bits", 1, 63)
    policy = Policy(_number(properties, where, "policy", 0, 0xFFFFFFFF, default=DEFAULT_POLICY))
    if PolicyBit.ES in policy:
        raise ConfigError(f"{where}: policy {int(policy):#x} asks for SEV-ES, which is not emulated")
    hashes = _switch(properties, where, "kernel-hashes", "off")
    encrypt = _switch(properties, where, "encrypt-memory", "on")
    certificate, session = (_text_file(properties, where, name) for name in ("dh-cert-file", "session-file"))
    keys: TransportKeys | None = None
    defaulted: tuple[str, ...] = ()
    if spec.type == TYPE and certificate is None and session is None:
        keys, defaulted = _keys(properties, where)
    elif spec.type == TYPE:
        for name in _KEYS:
            if name in properties:
                raise ConfigError(f"{where}: {name}: the keys come in the session, expected no {name}")
    else:
        for name in _OF_HARDWARE:
            properties.pop(name, None)
    for name in properties:
        raise ConfigError(f"Property '{spec.type}.{name}' not found")
    return SevObject(
        spec.id, c_bit, reduced, policy, keys, hashes, encrypt, defaulted, certificate=certificate, session=session
    )


def _keys(properties: dict[str, str], where: str) -> tuple[TransportKeys, tuple[str, ...]]:
    """The keys in the files that are named, zeros for the others; the names of those."""
    keys, defaulted = {}, []
    for name in _KEYS:
        path = properties.pop(name, None)
        if path is None:
            keys[name] = ZERO_KEY
            defaulted.append(name)
            continue
        try:
            keys[name] = read_key(path, name)
        except SevApiError as error:
            raise ConfigError(f"{where}: {error}") from None
    return TransportKeys(**keys), tuple(defaulted)


def _text_file(properties: dict[str, str], where: str, name: str) -> bytes | None:
    """What the file says in base64, which is how QEMU takes it; None where there is none."""
    path = properties.pop(name, None)
    if path is None:
        return None
    try:
        data = decode_base64(read_at_most(path, name, _LIMIT))
    except SevApiError as error:
        raise ConfigError(f"{where}: {error}") from None
    if data is None:
        raise ConfigError(f"{where}: {name}: {path}: expected base64")
    return data


def _number(
    properties: dict[str, str], where: str, name: str, lowest: int, highest: int, default: int | None = None
) -> int:
    text = properties.pop(name, None)
    expected = f"expected a number from {lowest} to {highest:#x}" if highest > 99 else f"expected {lowest} to {highest}"
    if text is None:
        if default is None:
            raise ConfigError(f"{where}: property {name} is missing: {expected}")
        return default
    try:
        value = int(text, 0)
    except ValueError:
        raise ConfigError(f"{where}: {name}={text}: {expected}") from None
    if not lowest <= value <= highest:
        inside = f" (bits below {lowest} belong to guest-physical addresses)" if name == "cbitpos" else ""
        raise ConfigError(f"{where}: {name}={text}: {expected}{inside}")
    return value


def _switch(properties: dict[str, str], where: str, name: str, default: str) -> bool:
    text = properties.pop(name, default)
    if text not in SWITCH:
        raise ConfigError(f"{where}: {name}={text}: expected on or off")
    return SWITCH[text]
