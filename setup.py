"""The optional compiled part; everything else is in pyproject.toml."""

from setuptools import Extension, setup

FOLDER = "sevplug/core/engine/compiled/"

setup(
    ext_modules=[
        # No extension module of Python's, but a library that ctypes loads (see its __init__.py).  Without a compiler
        # the installation goes on without it.
        Extension(
            "sevplug.core.engine.compiled._fill",
            sources=[FOLDER + "fill.c", FOLDER + "walk.c"],
            depends=[FOLDER + "walk.h"],
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-fno-strict-aliasing"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
