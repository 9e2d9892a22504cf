"""`architecture` blocks of plans, as nnU-Net's planners write them."""

from math import prod

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
KINDS = ("2d", "isotropic", "anisotropic")


def geometry(kind, stages):
    """Strides and kernel sizes as nnU-Net plans them; anisotropic: axis 0 is left alone once, then halved twice."""
    axes = 2 if kind == "2d" else 3
    strides = [[1] * axes, *([2] * axes for _ in range(stages - 1))]
    kernels = [[3] * axes for _ in range(stages)]
    if kind == "anisotropic":
        kernels[0] = [1, 3, 3]
        for index in (1, *range(4, stages)):
            if index < stages:
                strides[index] = [1, 2, 2]
    return strides, kernels


def patch_for(kind, stages):
    """A small patch that the strides divide and that leaves more than one voxel at the bottom."""
    strides, _ = geometry(kind, stages)
    total = [prod(stride[axis] for stride in strides) for axis in range(len(strides[0]))]
    return [*total[:-1], 2 * total[-1]]


def architecture(kind, stages, *, name=PLAIN, features=None):
    """An `architecture` block as nnU-Net's planners write it."""
    dimension = 2 if kind == "2d" else 3
    strides, kernels = geometry(kind, stages)
    widest = 512 if dimension == 2 else 320
    residual_blocks = [1, 3, 4, 6, 6, 6, 6, 6][:stages]
    depth = {"n_conv_per_stage": [2] * stages} if name == PLAIN else {"n_blocks_per_stage": residual_blocks}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features or [min(32 * 2**i, widest) for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": kernels,
            "strides": strides,
            **depth,
            "n_conv_per_stage_decoder": [2 if name == PLAIN else 1] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def narrow_architecture(kind, stages, *, name=PLAIN):
    """The same with few channels, all different, for quick forward passes."""
    return architecture(kind, stages, name=name, features=[16 + 8 * i for i in range(stages)])
