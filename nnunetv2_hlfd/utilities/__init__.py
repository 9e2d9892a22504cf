"""What knows nothing of nnU-Net: files, texts, processes, devices."""
