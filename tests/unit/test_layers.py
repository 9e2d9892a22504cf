"""The folders of the package form layers: a file imports from its own layer or a lower one, never from a higher one."""

import re
import sys

from source_imports import PACKAGE, ROOT, imports

# From top to bottom; docs/explanation/architecture.md shows the same.
LAYERS = """
cli
demo, compress, study, benchmark, deploy, report
training
teacher, methods
distillation
models
plans, losses, datasets
settings
networks
utilities
"""
HEIGHTS = {
    folder: -depth for depth, layer in enumerate(LAYERS.strip().splitlines()) for folder in re.findall(r"\w+", layer)
}
RUNTIME = "nnunetv2_hlfd.deploy.runtime"
OPTIONAL = ("nibabel", "imageio", "tifffile", "highdicom", "pydicom")  # where a model's images, or DICOM-SEG, need them
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.parent != PACKAGE]


def test_every_folder_of_the_package_stands_in_the_list():
    folders = {folder.name for folder in PACKAGE.iterdir() if any(folder.glob("*.py"))}
    assert folders == set(HEIGHTS)


def test_the_page_on_the_architecture_shows_the_same_layers():
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    assert f"```text{LAYERS}```" in page


def test_no_import_runs_upward():
    upward = []
    for file in FILES:
        own = file.relative_to(PACKAGE).parts[0]
        for name, line in imports(file):
            package, *parts = name.split(".")
            if package == PACKAGE.name and parts != ["__version__"] and not name.startswith(f"{RUNTIME}."):
                height = HEIGHTS.get(parts[0], 1)  # the package's own public names stand above everything
                if height > HEIGHTS[own]:
                    upward.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert upward == []


def test_the_program_for_machines_without_torch_imports_nothing_of_the_package_but_itself():
    """Nothing that exists on POSIX alone either, such as os.fork, but where the file has another way for Windows."""
    allowed = {*sys.stdlib_module_names, "numpy", "SimpleITK", "onnxruntime", "openvino", *OPTIONAL}
    allowed -= {"fcntl", "resource", "signal", "multiprocessing"}
    with_another_way = {"lock.py": "fcntl", "signals.py": "signal", "hidden_folder.py": "os.kill"}
    everywhere = {"fsync", "devnull", "open", "O_WRONLY", "dup2", "fstat", "getpid", "name", "path", "register_at_fork"}
    foreign = []
    for file in (PACKAGE / "deploy/runtime").rglob("*.py"):
        for name, line in imports(file):
            module, also = name.split(".")[0], with_another_way.get(file.name, "")
            if module not in {*allowed, also} and not name.startswith(f"{RUNTIME}."):
                foreign.append(f"{file.name}:{line} imports {name}")
        used = set(re.findall(r"\bos\.(\w+)", file.read_text(encoding="utf-8")))
        assert used <= {*everywhere, with_another_way.get(file.name, "").removeprefix("os.")}, file.name
    assert foreign == []
