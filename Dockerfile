# docker build --tag resnets .                            with torch, on the CPU
# docker build --tag resnets --build-arg TORCH=cu130 .    with torch, on NVIDIA's GPUs
# docker build --tag resnets-slim --target slim .         without torch: predicts from exported files
#
# docker run --rm --volume "$PWD:/data" resnets train photos
# docker run --rm --volume "$PWD:/data" --gpus all --shm-size 2g resnets train photos
# docker run --rm --volume "$PWD:/data" resnets-slim predict model.onnx photos
# resnets serve MODEL --print compose (or kubernetes, kserve) writes what serves a model with them
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
RUN pip install --no-cache-dir uv==0.13.8 \
 && uv venv /opt/resnets
ENV VIRTUAL_ENV=/opt/resnets UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY resnets resnets

# What `resnets predict model.onnx` and `resnets serve model.onnx` import, and nothing else.
FROM build AS build-slim
RUN uv pip install --no-cache --constraint requirements.lock \
      numpy onnxruntime pillow rich shtab tyro \
      httptools prometheus_client python-multipart pyyaml starlette uvicorn uvloop \
 && uv pip install --no-cache --no-deps .

# TORCH is any backend of `uv pip install --torch-backend`: cpu, cu130, ...
FROM build AS build-full
ARG TORCH=cpu
RUN uv pip install --no-cache --constraint requirements.lock --torch-backend "${TORCH}" \
      ".[explain,fast,hub,onnx,serve]"

FROM python:${PYTHON}-slim AS base
RUN useradd --uid 1000 --create-home resnets
ENV PATH=/opt/resnets/bin:$PATH
USER 1000
WORKDIR /data
ENTRYPOINT ["resnets"]
CMD ["--help"]

FROM base AS slim
COPY --from=build-slim /opt/resnets /opt/resnets

FROM base AS full
COPY --from=build-full /opt/resnets /opt/resnets
