"""Builds the native kernels beside the package; everything else is in pyproject.toml.

Where they cannot be built the package installs without them, and says so when it is used.
"""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("fastssd/native/src")

setup(
    ext_modules=[
        Extension(
            "fastssd.native._kernels",
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            libraries=["jpeg", "m", "pthread"],
            extra_compile_args=[
                "-std=gnu11",
                "-O3",
                "-g0",
                "-fno-wrapv",  # Python's own flag, which keeps loops from being vectorised
                "-Wall",
                "-Wextra",
                "-fvisibility=default",
            ],
            optional=True,
        )
    ]
)
