"""Which model is compressed: a folder, a zip of models, or one that nnUNet_results has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.datasets.locations import find_dataset, results_folder
from nnunetv2_hlfd.models.model_archive import find_models, unpack_models
from nnunetv2_hlfd.utilities.atomic import scratch_folder
from nnunetv2_hlfd.utilities.errors import UserError

UNPACKED = "model_*"


@contextmanager
def with_model_folder(options: CompressOptions, *, dry_run: bool) -> Iterator[CompressOptions]:
    """Hand out the options with the folder of the only model that is meant.

    A zip is unpacked into the folder of the compression; for a dry run into one for temporary files, which goes.

    Raises:
        UserError: where no model is meant, or more than one.
    """
    if options.model.is_file() and dry_run:
        with scratch_folder() as temporary:
            yield replace(options, model=_choose(unpack_models(options.model, temporary), options))
    else:
        yield replace(options, model=_find(options))


def _find(options: CompressOptions) -> Path:
    model = options.model
    if model.is_file():
        return _choose(unpack_models(model, options.output), options)
    if not model.is_dir():
        model = _known_to_nnunet(model)
    if (model / "plans.json").is_file() or not find_models(model):
        if _names(options):
            raise UserError(f"{model} is the folder of one model: leave out {', '.join(_names(options))}.")
        return model
    return _choose(model, options)


def _known_to_nnunet(name: Path) -> Path:
    """The folder in nnUNet_results of a data set by its name or number, or of one of its models by its path there."""
    if len(name.parts) == 1 and (name.name.isdecimal() or name.name.startswith("Dataset")):
        return results_folder() / find_dataset(name.name)
    folder = None if name.is_absolute() or len(name.parts) == 1 else results_folder() / name
    if folder is None or not folder.is_dir():
        raise UserError(
            f"Expected a model folder, a zip of models, or the name or number of a data set in nnUNet_results for -m; "
            f"there is no {name}."
        )
    return folder


def _choose(folder: Path, options: CompressOptions) -> Path:
    """The only model below a folder that has the trainer, the plans and the configuration."""
    wanted = (options.trainer, options.plans, options.configuration)
    models = [model for model in find_models(folder) if _has(model.name.split("__"), wanted)]
    if len(models) == 1:
        return models[0]
    there = [f"{model.parent.name}/{model.name}" for model in find_models(folder)]
    raise UserError(
        f"Expected one model in {options.model}, {len(models)} fit. Choose by -tr TRAINER, -p PLANS and -c "
        f"CONFIGURATION. There are: {', '.join(there)}."
    )


def _has(parts: Sequence[str], wanted: Sequence[str | None]) -> bool:
    return len(parts) == len(wanted) and all(name in (None, part) for part, name in zip(parts, wanted, strict=True))


def _names(options: CompressOptions) -> list[str]:
    given = {"-tr": options.trainer, "-p": options.plans, "-c": options.configuration}
    return [name for name, value in given.items() if value is not None]
