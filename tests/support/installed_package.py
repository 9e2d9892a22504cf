"""`make dist`: the demo's first steps and one training step, with the package of this interpreter's environment."""

import os
import subprocess
import sys
from pathlib import Path

import nnunetv2_hlfd


def try_package(folder):
    """Simulate cases, preprocess, plan, and train one step, by the commands beside this interpreter."""
    from nnunetv2_hlfd.demo.run import DATASET, PLANS, demo_steps, open_workspace
    from nnunetv2_hlfd.utilities.steps import run_steps

    commands = Path(sys.executable).parent
    os.environ["PATH"] = os.pathsep.join([str(commands), os.environ["PATH"]])
    workspace = open_workspace(folder, "cpu")
    run_steps(workspace, demo_steps(folder, "cpu")[:3])
    train = [str(commands / "nnUNetv2_hlfd"), "train", DATASET, "2d", "0", "-tr", "nnUNetTrainerStudent", "-p", PLANS]
    subprocess.run([*train, "-device", "cpu", "--dry_run"], cwd=folder, env=dict(workspace.environment), check=True)


if __name__ == "__main__":
    installed = Path(nnunetv2_hlfd.__file__)
    assert installed.is_relative_to(sys.prefix), f"{installed} is not the installed package"
    try_package(Path(sys.argv[1]).resolve())
