# SPDX-License-Identifier: MIT
"""Compiles libgradcam into the package; a wheel serves every Python 3."""

import pathlib
import re
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = {"win32": "gradcam.dll", "darwin": "libgradcam.dylib"}.get(sys.platform, "libgradcam.so")


def version():
    header = (ROOT / "include" / "gradcam" / "gradcam.h").read_text()
    return ".".join(re.search(rf"GRADCAM_VERSION_{part} (\d+)", header).group(1) for part in ("MAJOR", "MINOR", "PATCH"))


class Library(build_ext):
    """A plain shared library, not a Python module: its own name, no initialiser, no libpython."""

    def get_ext_filename(self, fullname):
        return str(pathlib.Path(*fullname.split(".")[:-1], NAME))

    def build_extension(self, ext):
        objects = self.compiler.compile(
            sources(), output_dir=self.build_temp, include_dirs=[str(ROOT / "include"), str(ROOT / "src")],
            macros=ext.define_macros, extra_postargs=ext.extra_compile_args)
        target = pathlib.Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(target), libraries=ext.libraries,
                                         extra_postargs=ext.extra_link_args)


class Wheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


def library():
    if sys.platform == "win32":
        return Extension("gradcam.libgradcam", [], define_macros=[("GRADCAM_BUILD_DLL", "1")],
                         extra_compile_args=["/O2", "/std:c11"])
    flags = ["-std=c99", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden"]
    link = [] if sys.platform == "darwin" else [f"-Wl,--version-script={ROOT / 'src' / 'gradcam.map'}"]
    return Extension("gradcam.libgradcam", [], extra_compile_args=flags, extra_link_args=link,
                     libraries=["m", "pthread"])


def sources():
    """The list that make and meson build from."""
    script = ROOT / "src" / "sources.sh"
    if not script.exists():
        sys.exit("the sources of libgradcam are not two folders up; build the wheel in the repository")
    listed = subprocess.run(["sh", str(script), "library"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [str(ROOT / name) for name in listed.stdout.split()]


setup(version=version(), ext_modules=[library()], cmdclass={"build_ext": Library, "bdist_wheel": Wheel})
