"""Clipping CT intensities at a given window in place of nnU-Net's percentiles, by the plans alone."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError

Window = tuple[float, float]

# HU, from the paper's section 3
WINDOWS: Mapping[str, Window] = {"kidney": (-200.0, 300.0), "liver": (-40.0, 160.0)}

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_KEY = "foreground_intensity_properties_per_channel"


def parse_window(text: str) -> Window:
    """Read `kidney`, `liver` or `LOW,HIGH` from the command line.

    Raises:
        UserError: for anything else, and where LOW is not below HIGH.
    """
    if text in WINDOWS:
        return WINDOWS[text]
    match = re.fullmatch(rf"({_NUMBER}),({_NUMBER})", text)
    if not match or float(match[1]) >= float(match[2]):
        raise UserError(
            f"Expected {', '.join(WINDOWS)} or LOW,HIGH in HU with LOW below HIGH as -window, got '{text}'."
        )
    return float(match[1]), float(match[2])


def clip_at(window: Window, plans: dict[str, Any]) -> None:
    """Let the plans clip every CT channel at the window, and give them preprocessed data of their own.

    nnU-Net's CTNormalization clips at the two percentiles of the foreground, subtracts the mean and divides by the
    standard deviation. Mean and standard deviation stay those of the data set's foreground: the fingerprint has no
    samples from which those of the clipped intensities could be computed. They only shift and scale the input, for
    teacher and student alike.

    Args:
        window: lowest and highest HU.
        plans: changed in place; `plans_name` is already that of the variant.

    Raises:
        UserError: for plans without a CT channel, or whose foreground lies outside the window.
    """
    configurations = plans["configurations"]
    schemes = [
        (channel, scheme)
        for configuration in configurations.values()
        for channel, scheme in enumerate(configuration.get("normalization_schemes", []))
    ]
    channels = sorted({channel for channel, scheme in schemes if scheme == "CTNormalization"})
    if not channels:
        others = ", ".join(sorted({scheme for _, scheme in schemes}))
        raise UserError(f"Expected a channel with CTNormalization for -window, got {others}: no CT data.")
    for channel in channels:
        properties = plans[_KEY][str(channel)]
        if properties["max"] <= window[0] or properties["min"] >= window[1]:
            raise UserError(
                f"The foreground's intensities go from {properties['min']:g} to {properties['max']:g} in channel "
                f"{channel}: none lies between {window[0]:g} and {window[1]:g}."
            )
        properties["percentile_00_5"], properties["percentile_99_5"] = window
    for name in configurations_with_data(plans):
        # The window is part of it: preprocessed cases do not say how they were clipped.
        configurations[name]["data_identifier"] = f"{plans['plans_name']}_{window[0]:g}to{window[1]:g}_{name}"


def configurations_with_data(plans: Mapping[str, Any]) -> list[str]:
    """List the configurations that have preprocessed data of their own: a cascade's second stage has none."""
    return [name for name, configuration in plans["configurations"].items() if "data_identifier" in configuration]


def preprocess_command(plans: Mapping[str, Any]) -> str:
    """Return nnU-Net's command that makes the data of these plans."""
    number, names = str(int(plans["dataset_name"][7:10])), configurations_with_data(plans)
    return shlex.join(["nnUNetv2_preprocess", "-d", number, "-plans_name", plans["plans_name"], "-c", *names])
