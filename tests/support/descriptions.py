"""What an exported network says about its images, for tests that need no network."""

from nnunetv2_hlfd.deploy.runtime.description import Description, Normalization, Resampling


def make_description(reader: str = "SimpleITKIO", file_ending: str = ".nii.gz", channels: int = 1) -> Description:
    """That of a model whose images are read by a reader of nnU-Net."""
    ct = Normalization(scheme="CTNormalization", use_mask=False, mean=1, std=2, lower=0, upper=9)
    return Description(
        name="model",
        file_ending=file_ending,
        reader=reader,
        transpose=(0, 1, 2),
        spacing=(1.0, 2.0),
        patch_size=(64, 64),
        normalization=(ct,) * channels,
        resample_image=Resampling(order=3, order_z=0, force_separate_z=None),
        resample_logits=Resampling(order=1, order_z=0, force_separate_z=None),
        heads=3,
        regions_class_order=None,
        mirror_axes=(0, 1),
    )
