"""Networks: students as plans' architecture blocks, UNet++."""
