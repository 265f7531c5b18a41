"""The root of all emulated platforms: an ARK and an ASK whose private keys are published beside this file.

One root that everybody has, rather than one a platform: a new platform is made in milliseconds (an RSA key of 4096 bits
takes seconds), tools can pin one root for all emulated platforms, and nobody can mistake a chain with published keys
for one that means something. `scripts/make-emulated-root` made the files; the key ids say what they are.
"""

from __future__ import annotations

from importlib import resources

from sevplug.sevapi.amd_certificates import AmdCertificate
from sevplug.sevapi.chain import AmdChain
from sevplug.sevapi.rsa import RsaPrivateKey

ROOT_NAME = "the published test root of sevplug's emulation"
ARK_ID = b"sevplug emul ARK"
ASK_ID = b"sevplug emul ASK"


def emulated_root() -> AmdChain:
    """The certificates of the root."""
    return AmdChain(ask=_certificate("ask"), ark=_certificate("ark"))


def emulated_ask_key() -> RsaPrivateKey:
    """The private key that signs the CEK of every emulated platform. It is no secret."""
    return RsaPrivateKey.from_pem(_read("emulated-ask.pem"))


def emulated_ark_key() -> RsaPrivateKey:
    """The private key of the root. It is no secret."""
    return RsaPrivateKey.from_pem(_read("emulated-ark.pem"))


def is_emulated_root(ark: AmdCertificate) -> bool:
    """Whether `ark` is the root of the emulation."""
    return ark.fingerprint == _certificate("ark").fingerprint


def _certificate(name: str) -> AmdCertificate:
    return AmdCertificate.from_bytes(_read(f"emulated-{name}.cert"))


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
