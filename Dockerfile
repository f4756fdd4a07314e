# The worker's image. Targets are variants of one last stage, chosen by VARIANT (docker-bake.hcl):
#   base   no models: from a network volume or RunPod's cached models
#   sdxl   SDXL baked in
#   train  no checkpoint, but the trainer, its tokenizers and the captioning tagger
#   full   SDXL, SVD and all of train
# Our code is the last layer: a change of the handler rebuilds nothing else and downloads nothing.
# Stages comfyui and sd-scripts are the only ones that need GitHub; a build context of the same
# name can stand in for either (make image-test does so).

ARG BASE_IMAGE=debian:12.12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c
ARG VARIANT=sdxl

FROM ${BASE_IMAGE} AS base
SHELL ["/bin/sh", "-eu", "-c"]
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
# hadolint ignore=DL3008 # Debian keeps only the newest fix of a package; the base is pinned by digest
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates python3 python3-venv tini && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 1000 --create-home --shell /usr/sbin/nologin worker

FROM base AS uv
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/uv && \
    /opt/uv/bin/pip install --disable-pip-version-check "uv==${UV_VERSION}" && \
    ln -s /opt/uv/bin/uv /usr/local/bin/uv

# The handler's own environment: no torch, or the SDK would open a CUDA context in the handler.
FROM uv AS worker-env
COPY requirements.txt /build/requirements.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/worker --python /usr/bin/python3 && \
    uv pip install --python /opt/worker/bin/python --require-hashes -r /build/requirements.txt

# One torch for ComfyUI and the trainer, which see it through a .pth file: ComfyUI wants
# CUDA 13 on NVIDIA 20 series and up. For a driver older than 580: TORCH_INDEX=.../whl/cu128 (slower).
# The wheels bring CUDA's libraries.
FROM uv AS torch
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_VERSION=2.11.0
ARG TORCHVISION_VERSION=0.26.0
ARG TORCHAUDIO_VERSION=2.11.0
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /usr/bin/python3 --target /opt/torch --index-url "${TORCH_INDEX}" \
        "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}" \
        "torchaudio==${TORCHAUDIO_VERSION}"
# hadolint ignore=DL3008 # as above
RUN apt-get update && apt-get install -y --no-install-recommends git && \
    rm -rf /var/lib/apt/lists/*

FROM torch AS comfyui
ARG COMFY_CLI_VERSION=1.23.0
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/comfy-cli && \
    /opt/comfy-cli/bin/pip install --disable-pip-version-check "comfy-cli==${COMFY_CLI_VERSION}"
ARG COMFYUI_VERSION=0.33.0
ENV DO_NOT_TRACK=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY builder/comfyui-constraints.txt /build/comfyui-constraints.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/comfyui && \
    echo /opt/torch >"$(echo /opt/comfyui/lib/python3*/site-packages)/torch.pth" && \
    VIRTUAL_ENV=/opt/comfyui PIP_CONSTRAINT=/build/comfyui-constraints.txt \
        /opt/comfy-cli/bin/comfy --skip-prompt --workspace /comfyui install \
        --version "${COMFYUI_VERSION}" --nvidia --skip-torch-or-directml --skip-manager && \
    rm -rf /comfyui/.git && \
    ln -s /opt/comfyui /comfyui/.venv
WORKDIR /comfyui
RUN grep -Fq "__version__ = \"${COMFYUI_VERSION}\"" comfyui_version.py && \
    .venv/bin/python main.py --cpu --quick-test-for-ci --disable-api-nodes \
        --database-url sqlite:///:memory: && \
    .venv/bin/python -m compileall -q /comfyui /opt/comfyui /opt/torch

FROM torch AS sd-scripts
ARG SD_SCRIPTS_TAG=v0.10.1
ARG SD_SCRIPTS_COMMIT=ae72efb92babe89ff8e70f057e42db68440e8d61
RUN git clone --depth 1 --branch "${SD_SCRIPTS_TAG}" \
        https://github.com/kohya-ss/sd-scripts /opt/sd-scripts && \
    test "$(git -C /opt/sd-scripts rev-parse HEAD)" = "${SD_SCRIPTS_COMMIT}" && \
    rm -rf /opt/sd-scripts/.git
COPY builder/sd-scripts-requirements.txt /build/sd-scripts-requirements.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/sd-scripts/.venv --python /usr/bin/python3 && \
    echo /opt/torch >"$(echo /opt/sd-scripts/.venv/lib/python3*/site-packages)/torch.pth" && \
    uv pip install --python /opt/sd-scripts/.venv/bin/python --no-deps \
        -r /build/sd-scripts-requirements.txt
WORKDIR /opt/sd-scripts
RUN .venv/bin/python sdxl_train_network.py --help >/dev/null && \
    .venv/bin/python -m compileall -q /opt/sd-scripts

# Models, each set in a stage of its own, so that a change of one fetches one. Gated ones need the
# build secret hf_token.
FROM worker-env AS fetcher
WORKDIR /build
COPY builder/__init__.py builder/errors.py builder/manifest.py builder/library.py \
    builder/transfer.py builder/download.py builder/fetch_models.py builder/models.toml builder/

FROM fetcher AS models-sdxl
RUN --mount=type=secret,id=hf_token \
    /opt/worker/bin/python -m builder.fetch_models --token-file /run/secrets/hf_token \
        --into /models --target worker-sdxl

FROM fetcher AS models-train
RUN --mount=type=secret,id=hf_token \
    /opt/worker/bin/python -m builder.fetch_models --token-file /run/secrets/hf_token \
        --into /models --target worker-train

FROM fetcher AS models-svd
RUN --mount=type=secret,id=hf_token \
    /opt/worker/bin/python -m builder.fetch_models --token-file /run/secrets/hf_token \
        --into /models --name svd_xt.safetensors

# What every variant has. The worker's user may write where ComfyUI keeps its own data and where
# models are linked in; code and environments belong to root.
FROM base AS variant-base
COPY --from=comfyui /opt/torch /opt/torch
COPY --from=comfyui /opt/comfyui /opt/comfyui
COPY --from=comfyui /comfyui /comfyui
COPY --from=worker-env /opt/worker /opt/worker
RUN mkdir -p /comfyui/user /comfyui/models/checkpoints /comfyui/models/tokenizers \
        /comfyui/models/taggers && \
    chown -R worker:worker /comfyui/user && \
    find /comfyui/models -type d -exec chown worker:worker {} +
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HUB_OFFLINE=1 \
    COMFYUI_DIR=/comfyui \
    COMFYUI_PORT=8188 \
    WORKER_TASKS=image,video,characters,health

FROM variant-base AS variant-sdxl
COPY --from=models-sdxl --chown=worker:worker /models /comfyui/models

FROM variant-base AS variant-train
COPY --from=sd-scripts /opt/sd-scripts /opt/sd-scripts
COPY --from=models-train --chown=worker:worker /models /comfyui/models
# hadolint ignore=DL3064 # a tokenizer's folder is no secret
ENV WORKER_TASKS=image,video,train,characters,health \
    KOHYA_DIR=/opt/sd-scripts \
    KOHYA_TOKENIZERS=/comfyui/models/tokenizers \
    TAGGER_DIR=/comfyui/models/taggers/wd-swinv2-tagger-v3

FROM variant-train AS variant-full
COPY --from=models-sdxl --chown=worker:worker /models /comfyui/models
COPY --from=models-svd --chown=worker:worker /models /comfyui/models

# Bytecode is made here, for the worker's user cannot write it beside code that belongs to root.
FROM base AS code
WORKDIR /app
COPY builder/__init__.py builder/errors.py builder/manifest.py builder/library.py \
    builder/link_models.py builder/models.toml builder/healthcheck.py builder/make_bucket.py builder/
COPY --chmod=755 builder/entrypoint.sh builder/
COPY families families
COPY lora_registry lora_registry
COPY workflows workflows
COPY worker worker
COPY handler.py errors.py test_input.json ./
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

# The HTTP API and its page: no GPU, no ComfyUI. For a RunPod CPU load-balancing endpoint, or any host.
FROM base AS gateway
COPY --from=worker-env /opt/worker /opt/worker
WORKDIR /app
COPY families families
COPY lora_registry lora_registry
COPY workflows workflows
COPY worker worker
COPY gateway gateway
COPY errors.py ./
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app
ENV HOST=0.0.0.0 PORT=8080
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["/opt/worker/bin/python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/ping', timeout=5)"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["/opt/worker/bin/python", "-m", "gateway"]

# hadolint ignore=DL3006 # a stage of this file
FROM variant-${VARIANT} AS worker
ARG COMFYUI_ARGS=""
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Characters on RunPod" \
    org.opencontainers.image.description="RunPod serverless worker: train a character, then pictures and videos of it" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-only" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
ENV COMFYUI_ARGS=${COMFYUI_ARGS}
WORKDIR /app
COPY --from=code /app /app
USER 1000:1000
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["/opt/worker/bin/python", "builder/healthcheck.py"]
ENTRYPOINT ["/usr/bin/tini", "--", "/app/builder/entrypoint.sh"]
CMD ["/opt/worker/bin/python", "handler.py"]
