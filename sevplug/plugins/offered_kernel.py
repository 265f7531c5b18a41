"""What firmware will read over fw_cfg, held against the images whose hashes were measured."""

from __future__ import annotations

from sevplug.board import fw_cfg_keys as key
from sevplug.board.fw_cfg import FwCfg
from sevplug.core.config import BootImages

# What a table of kernel hashes covers.
IMAGES = ("kernel", "initrd", "command line")


def changed_images(fw_cfg: FwCfg, boot: BootImages) -> list[str]:
    """Which of `IMAGES` the guest is offered other than ``boot`` has them.

    Something between the measurement and the guest changed them: firmware that checks hashes refuses to start that.
    """

    def offered(*numbers: int) -> bytes:
        return b"".join(fw_cfg.item(number) or b"" for number in numbers)

    assert boot.kernel is not None
    command_line = (boot.cmdline or "").encode(errors="surrogateescape") + b"\0"
    pairs = (
        (offered(key.SETUP_DATA, key.KERNEL_DATA), boot.kernel.data),
        (offered(key.INITRD_DATA), b"" if boot.initrd is None else boot.initrd.data),
        (offered(key.CMDLINE_DATA), command_line),
    )
    return [name for name, (found, measured) in zip(IMAGES, pairs, strict=True) if found != measured]
