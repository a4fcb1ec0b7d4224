"""What has to be shown on a machine with an NVIDIA GPU: see __main__.py."""
