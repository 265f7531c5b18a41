"""The target description: GDB learns from it that the machine is an x86-64 and which registers there are.

Source: GDB's manual, appendix "Target Descriptions" (Target Description Format, Predefined Target Types, i386
Features).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from sevplug.plugins.gdb.registers import FEATURES

# Type -> size in bytes, and the bits that have a name.
_FLAGS: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "eflags": (
        4,
        {
            "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11, "NT": 14, "RF": 16,
            "VM": 17, "AC": 18, "VIF": 19, "VIP": 20, "ID": 21,
        },
    ),
    "cr0": (
        8,
        {
            "PE": 0, "MP": 1, "EM": 2, "TS": 3, "ET": 4, "NE": 5, "WP": 16, "AM": 18, "NW": 29, "CD": 30, "PG": 31,
        },
    ),
    "cr4": (
        8,
        {
            "VME": 0, "PVI": 1, "TSD": 2, "DE": 3, "PSE": 4, "PAE": 5, "MCE": 6, "PGE": 7, "PCE": 8, "OSFXSR": 9,
            "OSXMMEXCPT": 10, "UMIP": 11, "LA57": 12, "FSGSBASE": 16, "PCIDE": 17, "OSXSAVE": 18, "SMEP": 20,
            "SMAP": 21, "PKE": 22,
        },
    ),
    "efer": (8, {"SCE": 0, "LME": 8, "LMA": 10, "NXE": 11, "SVME": 12, "LMSLE": 13, "FFXSR": 14, "TCE": 15}),
    "mxcsr": (
        4,
        {
            "IE": 0, "DE": 1, "ZE": 2, "OE": 3, "UE": 4, "PE": 5, "DAZ": 6, "IM": 7, "DM": 8, "ZM": 9, "OM": 10,
            "UM": 11, "PM": 12, "FZ": 15,
        },
    ),
}  # fmt: skip
_VECTORS = (
    ("v4_float", "ieee_single", 4), ("v2_double", "ieee_double", 2), ("v16_int8", "int8", 16),
    ("v8_int16", "int16", 8), ("v4_int32", "int32", 4), ("v2_int64", "int64", 2),
)  # fmt: skip


@cache
def target_description() -> bytes:
    """The document ``target.xml``."""
    defined: set[str] = set()
    features = "".join(_feature(name, defined) for name in FEATURES)
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'
        f"<target>\n<architecture>i386:x86-64</architecture>\n{features}</target>\n"
    ).encode()


def _feature(name: str, defined: set[str]) -> str:
    """One feature, with those of its types that are not ``defined`` yet."""
    lines = [f'<feature name="{name}">']
    for register in FEATURES[name]:
        if register.type not in defined:
            defined.add(register.type)
            lines += _type(register.type)
        group = "" if register.group is None else f' group="{register.group}"'
        lines.append(f'<reg name="{register.name}" bitsize="{8 * register.size}" type="{register.type}"{group}/>')
    return "\n".join([*lines, "</feature>\n"])


def _type(name: str) -> list[str]:
    """The lines that define a type; none for a type that GDB knows."""
    if name == "vec128":
        return [
            *(f'<vector id="{field}" type="{of}" count="{count}"/>' for field, of, count in _VECTORS),
            f'<union id="{name}">',
            *(f'<field name="{field}" type="{field}"/>' for field, _of, _count in _VECTORS),
            '<field name="uint128" type="uint128"/>',
            "</union>",
        ]
    if name not in _FLAGS:
        return []
    size, bits = _FLAGS[name]
    fields = (f'<field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in bits.items())
    return [f'<flags id="{name}" size="{size}">', *fields, "</flags>"]
