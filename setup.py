"""The optional compiled parts; everything else is in pyproject.toml."""

from setuptools import Extension, setup


def part(name: str, *sources: str, depends: tuple[str, ...] = ()) -> Extension:
    """No extension module of Python's, but a library that ctypes loads (sevplug/native.py).

    Without a compiler the installation goes on without it.
    """
    folder = name.rpartition(".")[0].replace(".", "/")
    return Extension(
        name,
        sources=[f"{folder}/{source}" for source in sources],
        depends=[f"{folder}/{file}" for file in depends],
        extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-fno-strict-aliasing"],
        py_limited_api=True,
        optional=True,
    )


setup(
    ext_modules=[
        part("sevplug.core.engine.compiled._fill", "exits.c", "fill.c", "walk.c", depends=("fill.h", "walk.h")),
        part("sevplug.sevapi.compiled._cipher", "cipher.c"),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
