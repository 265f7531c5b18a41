"""What importing the library costs."""

import subprocess
import sys


def test_importing_the_library_loads_no_cipher_and_nothing_else_of_sevplug() -> None:
    script = (
        "import importlib, pkgutil, sys, sevplug.sevapi\n"
        "for module in pkgutil.iter_modules(sevplug.sevapi.__path__, 'sevplug.sevapi.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "sevplug.sevapi.packet" in loaded
    assert not [name for name in loaded if name.split(".")[0] == "Crypto"]
    parts = {name.split(".")[1] for name in loaded if name.startswith("sevplug.")}
    # The latter finds what was compiled.
    assert parts == {"sevapi", "native"}
