"""Hatchling's hook for a wheel with kernels for users without a compiler: SHOESTRING_PREBUILT=1 asks for one.

Without it the wheel is for every machine and holds the sources of the kernels alone.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelKernels(BuildHookInterface[Any]):  # type: ignore[misc]  # hatchling is there only while it builds
    """Compiles the kernels for every level of this machine, and puts them in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's BuildHookInterface."""
        if version == "editable" or os.environ.get("SHOESTRING_PREBUILT") != "1":
            return
        folder = Path(self.directory) / "prebuilt"
        for path in compile_levels(Path(self.root), folder):
            build_data["force_include"][str(path)] = f"shoestring/kernels/prebuilt/{path.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_levels(root: Path, folder: Path) -> list[Path]:
    """A library for each level of this machine, in `folder`; raises what the compiler raises."""
    cpu_build, cpu_levels = load(root, "cpu_build"), load(root, "cpu_levels")
    compiler = os.environ.get("CXX") or shutil.which("c++")
    assert compiler is not None, "a wheel with kernels needs a C++ compiler"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for level in cpu_levels.LEVELS:
        if level.machine == cpu_levels.machine():
            paths.append(folder / f"{level.name}.so")
            # Not linked with OpenMP: its functions are those of the library that PyTorch has loaded. A second
            # one would have threads of its own, and a machine without a compiler may have none.
            cpu_build.build(compiler, level.flags, paths[-1], linked=())
    return paths


def load(root: Path, name: str) -> ModuleType:
    """A module of the kernels without their package, which imports PyTorch."""
    sys.path.insert(0, str(root))
    try:
        path = root / "shoestring" / "kernels" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look there
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(root))
