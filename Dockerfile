# Two images from one file; both run as an ordinary user.
#   docker build -t tensorgrad .                     NVIDIA GPUs; run with --gpus all
#   docker build -t tensorgrad:cpu --target cpu .    no GPU
# CUDA's libraries come with the CuPy wheel, so the base needs nothing from NVIDIA; the host needs
# its driver (CUDA 13: 580 or newer) and the NVIDIA container toolkit.

FROM python:3.12.11-slim-bookworm AS cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# Pillow reads images.
RUN pip install numpy==2.4.6 ml_dtypes==0.6.0 safetensors==0.8.0 pillow==13.0.0
WORKDIR /src
COPY pyproject.toml README.md ./
COPY tensorgrad ./tensorgrad
COPY kernels ./kernels
RUN pip install --no-deps . && useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user
ENTRYPOINT ["tensorgrad"]
CMD ["info"]

FROM cpu AS cuda
USER root
RUN pip install "cupy-cuda13x[ctk]==14.2.0" numpy==2.4.6
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TENSORGRAD_DEVICE=auto
USER user
