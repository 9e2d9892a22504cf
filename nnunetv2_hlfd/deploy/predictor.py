"""nnU-Net's predictor with another tile loop: tiles in batches, any of three backends, networks loaded once."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from torch import Tensor, nn

from nnunetv2_hlfd.deploy.convert import to_openvino, write_onnx
from nnunetv2_hlfd.deploy.package import read_exported
from nnunetv2_hlfd.deploy.runtime.network import FILES, Run, compile_openvino, find_networks, open_network, open_onnx
from nnunetv2_hlfd.deploy.runtime.tiles import Tile, batch_size, predict_tiles
from nnunetv2_hlfd.deploy.source import Source, read_source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.atomic import scratch_folder
from nnunetv2_hlfd.utilities.errors import UserError

BACKENDS = ("torch", *FILES)
_CUDA_BATCH_VOXELS = 2**22  # 16 slices of 512 x 512, 2 patches of 128 x 128 x 128


class Predictor(nnUNetPredictor):
    """Drop-in for nnUNetPredictor.

    Logits are summed in float32 on the processor, where half precision is slow, in float16 on a GPU, as nnU-Net does.
    """

    def __init__(
        self,
        model: Path,
        *,
        folds: Sequence[str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: torch.device,
        backend: str = "torch",
        step_size: float = 0.5,
        mirroring: bool = True,
        bfloat16: bool = False,
        on_device: bool = True,
        verbose: bool = False,
    ) -> None:
        """Load a model.

        Args:
            model: model folder of nnU-Net, or one that `nnUNetv2_hlfd export` wrote.
            folds: such as 0 or all; unset: all that are there.
            checkpoint: file in the fold's folder.
            device: of the torch backend; the others run on the processor.
            backend: torch, onnxruntime or openvino.
            step_size: of the sliding window, in patches.
            mirroring: whether to average over mirrored copies, where the model allows it.
            bfloat16: compute in bfloat16 on a processor (torch backend).
            on_device: keep the summed logits on the GPU.
            verbose: nnU-Net's messages.

        Raises:
            UserError: for a folder that is no model, a missing package, or choices that do not go together.
        """
        with redirect_stdout(StringIO()):  # nnU-Net says that a processor is no GPU, whatever was asked for
            super().__init__(
                tile_step_size=step_size,
                use_mirroring=mirroring,
                device=device,
                verbose=verbose,
                allow_tqdm=False,
                perform_everything_on_device=on_device and device.type == "cuda",
            )
        exported = not any(model.glob(f"fold_*/{checkpoint}")) and any(model.glob("fold_*/network.*"))
        if exported and backend == "torch":
            raise UserError(f"{model} holds no torch networks. Choose -backend onnxruntime or openvino, as exported.")
        if backend != "torch" and device.type != "cpu":
            raise UserError(f"The backend {backend} runs on the processor. Choose -device cpu.")
        self._bfloat16 = bfloat16
        if exported:
            networks = [open_network(file) for file in find_networks(model, list(folds) if folds else None)]
            self._describe(read_exported(model))
            self.allowed_mirroring_axes = networks[0].description.mirror_axes
            self.runs = [_on_tensors(network.run) for network in networks]
        else:
            source = read_source(model, folds, checkpoint)
            self._describe(source.model)
            self.runs = [_prepare(source, fold, backend, device) for fold in source.folds]

    def _describe(self, model: ModelFolder) -> None:
        """Tell nnU-Net's predictor everything but the network, which its own loop would run."""
        self.manual_initialization(
            nn.Identity(),
            model.plans,
            model.configuration_manager,
            None,
            model.dataset_json,
            model.network_trainer,
            model.mirror_axes,
        )
        self.channels = self.label_manager.num_segmentation_heads  # of what a network returns

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Return the logits (K, z, y, x) of a preprocessed image (C, z, y, x), on the CPU: the mean over the folds."""
        image, inside = pad_nd_image(data, self.configuration_manager.patch_size, "constant", {"value": 0}, True, None)
        tiles = self._internal_get_sliding_window_slicers(image.shape[1:])
        total = self._sliding_window(image, tiles, self.runs[0])
        for run in self.runs[1:]:
            total += self._sliding_window(image, tiles, run)
        total /= len(self.runs)
        return total[(slice(None), *inside[1:])]

    def _sliding_window(self, image: Tensor, tiles: list[Tile], run: Callable[[Tensor], Tensor]) -> Tensor:
        """Run all tiles; where the GPU's memory does not suffice, one at a time, then with the sums on the CPU."""
        patch = self.configuration_manager.patch_size
        cpu = torch.device("cpu")
        if self.device.type != "cuda":
            return self._run_tiles(image, tiles, run, cpu, batch_size(patch))
        many = batch_size(patch, _CUDA_BATCH_VOXELS)
        places = [(self.device, many), (self.device, 1)] if self.perform_everything_on_device else [(cpu, many)]
        for place, batch in [*places, (cpu, 1)]:
            try:
                return self._run_tiles(image, tiles, run, place, batch).cpu()
            except torch.OutOfMemoryError as error:
                last = error
                torch.cuda.empty_cache()
        raise last

    def _run_tiles(
        self, image: Tensor, tiles: list[Tile], run: Callable[[Tensor], Tensor], place: torch.device, batch: int
    ) -> Tensor:
        dtype = torch.float32 if place.type == "cpu" else torch.float16
        image = image.to(place)
        logits = torch.zeros((self.channels, *image.shape[1:]), dtype=dtype, device=place)
        weight = torch.zeros(image.shape[1:], dtype=dtype, device=place)
        window = compute_gaussian(
            tuple(self.configuration_manager.patch_size), sigma_scale=1.0 / 8, value_scaling_factor=10, device=place
        ).to(dtype)

        def network(batch: Tensor) -> Tensor:
            return run(batch.to(self.device)).to(place, dtype)

        axes = (self.allowed_mirroring_axes or ()) if self.use_mirroring else ()
        with self._precision():
            predict_tiles(
                image,
                network,
                tiles,
                into=logits,
                weight=weight,
                window=window,
                mirror_axes=axes,
                batch=batch,
                library=torch,
            )
        if not logits.isfinite().all():
            raise UserError("the network's output is not finite")
        return logits

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type == "cuda":
            return torch.autocast("cuda")
        return torch.autocast("cpu", torch.bfloat16) if self._bfloat16 else nullcontext()


def _prepare(source: Source, fold: str, backend: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Put a fold's network behind the chosen backend."""
    network = source.network(fold)
    if backend == "torch":
        network = network.to(device)
        compiled = os.environ.get("nnUNet_compile", "").lower() in ("true", "1", "t")  # as nnU-Net's predictor
        return torch.compile(network) if compiled else network
    if backend == "openvino":
        return _on_tensors(compile_openvino(to_openvino(network, source.model.input_shape)))
    with scratch_folder() as temporary:
        file = temporary / FILES[backend]
        write_onnx(network, source.model.input_shape, file)
        return _on_tensors(open_onnx(file).run)


def _on_tensors(run: Run) -> Callable[[Tensor], Tensor]:
    return lambda batch: torch.from_numpy(run(batch.numpy()))
