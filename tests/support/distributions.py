"""Installed distributions made of a few files in a folder, for tests of what plug-ins may bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

# The fixture `installer` of tests/conftest.py.
Installer = Callable[..., None]
HEAD = "from sevplug.core.hookspecs import hookimpl\n"


def install(
    folder: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, str], requires: Iterable[str] = ()
) -> None:
    """Lay distribution ``name`` 1.2 into ``folder``, which has to be on ``sys.path``.

    ``modules``: source by path, such as ``pkg/__init__.py``.  ``entry_points``: of the group ``sevplug``, object
    reference by name.  ``requires``: what it says it needs, as in ``sevplug>=0.1``.
    """
    for path, source in modules.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{needs}")
    lines = [f"{plugin} = {reference}" for plugin, reference in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[sevplug]", *lines, ""]))
