"""The trainer of UNet++."""

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_hlfd.networks.unet_plus_plus import PLANS_KEYS, UNetPlusPlus
from nnunetv2_hlfd.training.scheduled_trainer import ScheduledTrainer


class nnUNetTrainerUNetPlusPlus(ScheduledTrainer):
    """UNet++ with nnU-Net's loss under this package's schedule settings: the HLFD paper's teacher.

    The network is none of dynamic_network_architectures, so the checkpoint names this trainer: prediction, export and
    distillation from it need this package and nnUNet_extTrainer.
    """

    checkpoint_trainer = "nnUNetTrainerUNetPlusPlus"

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """UNet++ with stages, widths, kernels and strides of the plans."""
        given = configuration_manager.network_arch_init_kwargs
        kwargs = {key: given[key] for key in PLANS_KEYS if key in given}
        imports = [key for key in configuration_manager.network_arch_init_kwargs_req_import if key in kwargs]
        name = f"{UNetPlusPlus.__module__}.{UNetPlusPlus.__name__}"
        return get_network_from_plans(
            name, kwargs, imports, num_input_channels, num_output_channels, deep_supervision=enable_deep_supervision
        )
