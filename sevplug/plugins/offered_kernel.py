"""What firmware will read over fw_cfg, held against the images whose hashes were measured."""

from __future__ import annotations

from sevplug.board import fw_cfg_keys as key
from sevplug.board.fw_cfg import FwCfg
from sevplug.core.config import BootImages, Image
from sevplug.core.images import ImagePart

# What a table of kernel hashes covers.
IMAGES = ("kernel", "initrd", "command line")


def changed_images(fw_cfg: FwCfg, boot: BootImages) -> list[str]:
    """Which of `IMAGES` the guest is offered other than ``boot`` has them.

    Something between the measurement and the guest changed them: firmware that checks hashes refuses to start that.
    """

    def offers(image: Image | None, *numbers: int) -> bool:
        parts = [fw_cfg.contents(number) or b"" for number in numbers]
        size = 0
        for part in parts:
            if not isinstance(part, ImagePart) or part.image is not image or part.start != size:
                found = b"".join(fw_cfg.item(number) or b"" for number in numbers)
                return found == (b"" if image is None else image.data)
            size += part.size
        return image is not None and size == image.size

    assert boot.kernel is not None
    command_line = (boot.cmdline or "").encode(errors="surrogateescape") + b"\0"
    same = (
        offers(boot.kernel, key.SETUP_DATA, key.KERNEL_DATA),
        offers(boot.initrd, key.INITRD_DATA),
        fw_cfg.item(key.CMDLINE_DATA) == command_line,
    )
    return [name for name, good in zip(IMAGES, same, strict=True) if not good]
