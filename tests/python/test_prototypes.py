# SPDX-License-Identifier: MIT
"""The binding against include/gradcam/gradcam.h, symbol by symbol: whatever the
header declares is bound with the same types, layout and value, and nothing more."""

import ctypes as C
import os
import pathlib
import re
import subprocess
import sys

import pytest
from pycparser import c_ast, c_parser

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
from gradcam import _c  # noqa: E402

HEADER = "gradcam/gradcam.h"
CC = os.environ.get("CC", "cc").split()
SCALARS = {"int32_t": C.c_int32, "uint32_t": C.c_uint32, "int64_t": C.c_int64, "uint64_t": C.c_uint64,
           "size_t": C.c_size_t, "double": C.c_double, "float": C.c_float, "char": C.c_char}
STANDARD = "".join(f"typedef int {name};\n" for name in SCALARS if name.endswith("_t"))


def preprocess(folder, *options):
    for name in ("stddef.h", "stdint.h"):
        (folder / name).write_text("")
    source = folder / "all.c"
    source.write_text(f'{STANDARD}#include "{HEADER}"\n')
    return subprocess.run([*CC, "-E", "-P", "-nostdinc", "-DGRADCAM_API=", f"-I{folder}", f"-I{ROOT / 'include'}",
                           *options, str(source)], check=True, capture_output=True, text=True).stdout


class Header:
    def __init__(self, folder):
        self.structs, self.opaque, self.typedefs, self.functions, self.constants = {}, set(), {}, {}, set()
        for node in c_parser.CParser().parse(preprocess(folder)).ext:
            self.add(node)
        macros = re.findall(r"^#define (GRADCAM_\w+) \(?-?\d+\)?$", preprocess(folder, "-dM"), re.M)
        self.constants |= set(macros)

    def add(self, node):
        if isinstance(node, c_ast.Typedef):
            if node.name not in SCALARS:
                self.add_typedef(node.name, node.type)
        elif isinstance(node.type, c_ast.FuncDecl):
            self.functions[node.name] = node.type
        elif isinstance(node.type, c_ast.Enum):
            self.constants |= {item.name for item in node.type.values.enumerators}
        else:
            raise AssertionError(f"the header declares something new: {node}")

    def add_typedef(self, name, kind):
        inner = kind.type if isinstance(kind, c_ast.TypeDecl) else kind
        if isinstance(inner, c_ast.Struct) and inner.decls:
            self.structs[name] = inner.decls
        elif isinstance(inner, c_ast.Struct):
            self.opaque.add(name)
        else:
            self.typedefs[name] = kind

    def ctype(self, node):
        """The ctypes type that a C type must be bound as."""
        if isinstance(node, c_ast.ArrayDecl):
            return self.ctype(node.type) * int(node.dim.value)
        if isinstance(node, c_ast.PtrDecl):
            return self.pointer(node.type)
        if isinstance(node, c_ast.FuncDecl):
            return C.CFUNCTYPE(self.ctype(node.type), *self.arguments(node))
        name = " ".join(node.type.names)
        if name == "void":
            return None
        if name in self.typedefs:
            return self.ctype(self.typedefs[name])
        return SCALARS[name] if name in SCALARS else getattr(_c, name)

    def pointer(self, to):
        if isinstance(to, c_ast.FuncDecl):
            return self.ctype(to)
        inner = self.ctype(to)
        return C.c_void_p if inner is None else C.c_char_p if inner is C.c_char else C.POINTER(inner)

    def arguments(self, function):
        kinds = [self.ctype(p.type) for p in function.args.params]
        return [] if kinds == [None] else kinds


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    return Header(tmp_path_factory.mktemp("header"))


def bound_structs():
    return {name: item for name, item in vars(_c).items()
            if isinstance(item, type) and issubclass(item, C.Structure) and name.startswith("gc_")}


def test_functions(header):
    assert set(header.functions) == set(_c.PROTOTYPES)
    assert len(header.functions) >= 60
    for name, function in header.functions.items():
        result, arguments = _c.PROTOTYPES[name]
        assert result is header.ctype(function.type), name
        wanted = header.arguments(function)
        assert len(arguments) == len(wanted), name
        for k, (got, want) in enumerate(zip(arguments, wanted)):
            assert got is want, f"{name}, argument {k}: {got}, the header says {want}"
        assert getattr(_c.lib, name).argtypes == arguments and getattr(_c.lib, name).restype is result


def test_struct_fields(header):
    assert {n for n, s in bound_structs().items() if hasattr(s, "_fields_")} == set(header.structs)
    assert {n for n, s in bound_structs().items() if not hasattr(s, "_fields_")} == header.opaque
    for name, fields in header.structs.items():
        bound = getattr(_c, name)._fields_
        assert [f[0] for f in bound] == [f.name for f in fields], name
        for (field, kind), declared in zip(bound, fields):
            assert kind is header.ctype(declared.type), f"{name}.{field}"


def test_typedefs(header):
    for name, kind in header.typedefs.items():
        assert getattr(_c, name) is header.ctype(kind), name


def print_program(header):
    lines = [f'printf("{name} %lld\\n", (long long){name});' for name in sorted(header.constants)]
    for name, fields in header.structs.items():
        lines.append(f'printf("{name} %lld\\n", (long long)sizeof({name}));')
        lines += [f'printf("{name}.{f.name} %lld\\n", (long long)offsetof({name}, {f.name}));' for f in fields]
    body = "\n    ".join(lines)
    return f"#include <stdio.h>\n#include <{HEADER}>\nint main(void)\n{{\n    {body}\n    return 0;\n}}\n"


@pytest.fixture(scope="module")
def numbers(header, tmp_path_factory):
    """What a C compiler makes of the header: constants, sizes, offsets."""
    folder = tmp_path_factory.mktemp("layout")
    (folder / "layout.c").write_text(print_program(header))
    subprocess.run([*CC, "-std=c99", f"-I{ROOT / 'include'}", "-o", str(folder / "layout"), str(folder / "layout.c")],
                   check=True)
    out = subprocess.run([str(folder / "layout")], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def test_constants(header, numbers):
    bound = {name: value for name, value in vars(_c).items() if name.startswith("GRADCAM_")}
    assert set(bound) == header.constants
    assert bound == {name: numbers[name] for name in header.constants}


def test_layout(header, numbers):
    for name, fields in header.structs.items():
        struct = getattr(_c, name)
        assert C.sizeof(struct) == numbers[name], name
        for f in fields:
            assert getattr(struct, f.name).offset == numbers[f"{name}.{f.name}"], f"{name}.{f.name}"


def test_version(numbers):
    parts = [numbers[f"GRADCAM_VERSION_{part}"] for part in ("MAJOR", "MINOR", "PATCH")]
    assert _c.lib.gc_version() == parts[0] << 16 | parts[1] << 8 | parts[2]
    assert _c.lib.gc_version_string().decode() == ".".join(map(str, parts))


def test_statuses(header):
    for name in header.constants:
        if name == "GRADCAM_OK" or name.startswith("GRADCAM_E_"):
            assert _c.lib.gc_status_name(getattr(_c, name)).decode() == name


def test_where_the_library_is_looked_for(tmp_path):
    """GRADCAM_LIBRARY alone; else the wheel's, the build folder's, the system's."""
    package = tmp_path / "bindings" / "python" / "gradcam"
    (tmp_path / "include" / "gradcam").mkdir(parents=True)
    (tmp_path / "build").mkdir()
    package.mkdir(parents=True)
    name = _c._NAMES[0]
    assert _c.candidates({"GRADCAM_LIBRARY": "here.so"}, package) == ["here.so"]
    (tmp_path / "build" / name).touch()
    assert str(tmp_path / "build" / name) not in _c.candidates({}, package)  # not this project's tree
    (tmp_path / "include" / "gradcam" / "gradcam.h").touch()
    assert _c.candidates({}, package)[0] == str(tmp_path / "build" / name)
    (package / name).touch()
    assert _c.candidates({}, package)[:2] == [str(package / name), str(tmp_path / "build" / name)]


def test_another_library_is_refused():
    other = C.util.find_library("m")
    with pytest.raises(OSError, match="gc_version"):
        _c.load(other)
