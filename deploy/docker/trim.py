"""Remove from an image's Python environment what no service runs: `trim.py ENVIRONMENT`.

Licences and metadata stay: they are due with the code, and vulnerability scanners read them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

#: Tests, type stubs, headers and static libraries, in every distribution.
_FILES = ("**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.h", "**/*.hpp", "**/*.a", "**/*.lib", "**/*_tests.*.so")
_FOLDERS = ("**/tests", "**/include")
#: Parts that only developers use.
_PARTS = (
    "cv2/data",
    "numpy/_core/_simd.*",  # checks NumPy's own build
    "numpy/distutils",
    "numpy/f2py",
    # The Python module contains ONNX Runtime; this is a second copy for programs in C.
    "onnxruntime/capi/libonnxruntime.so.*",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)


def unused(environment: Path) -> Iterator[Path]:
    """The files and folders to remove."""
    yield environment / "include"
    yield from (script for script in (environment / "bin").iterdir() if not script.name.startswith("python"))
    for site_packages in environment.glob("lib/python*/site-packages"):
        for pattern in (*_FOLDERS, *_PARTS, *_FILES):
            yield from site_packages.glob(pattern)


def remove(path: Path) -> int:
    """Remove a file or a folder, if it is there; returns how many bytes that freed."""
    if path.is_dir():
        freed = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return freed
    freed = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return freed


def trim(environment: Path) -> int:
    """Remove what no service runs; returns how many bytes that freed."""
    return sum(remove(path) for path in list(unused(environment)))


if __name__ == "__main__":
    sys.stdout.write(f"removed {trim(Path(sys.argv[1])) / 1e6:.1f} MB that no service runs\n")
