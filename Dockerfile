# The worker's image. Targets are variants of one last stage, chosen by VARIANT (docker-bake.hcl):
#   base   no models: from a network volume or RunPod's cached models
#   sdxl   SDXL baked in
#   train  no checkpoint, but the trainer, its tokenizers and the captioning tagger
#   full   SDXL, SVD and all of train
# Our code is the last layer: a change of the handler rebuilds nothing else and downloads nothing.
# Stages comfyui and sd-scripts are the only ones that need GitHub; a build context of the same
# name can stand in for either (make image-test does so).
# Every package is pinned by hash (builder/locks), what comes from git by commit, the base by digest.

# Another base, as a company's own, comes by BASE_IMAGE; this one is kept current by dependabot.
ARG BASE_IMAGE=debian
ARG VARIANT=sdxl

FROM debian:12.15-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251 AS debian

# hadolint ignore=DL3006 # a stage of this file, or whatever the person at the build pins
FROM ${BASE_IMAGE} AS base
SHELL ["/bin/sh", "-eu", "-c"]
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1
# The digest is as old as its last bump: the upgrade brings the security fixes since.
# hadolint ignore=DL3008 # Debian keeps only the newest fix of a package; the base is pinned by digest
RUN apt-get update && \
    apt-get upgrade -y && \
    apt-get install -y --no-install-recommends ca-certificates python3 python3-venv tini && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 1000 --create-home --shell /usr/sbin/nologin worker

FROM base AS uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
COPY builder/locks/uv.txt /build/uv.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/uv && \
    /opt/uv/bin/pip install --disable-pip-version-check --no-deps --require-hashes \
        -r /build/uv.txt && \
    ln -s /opt/uv/bin/uv /usr/local/bin/uv

# The handler's own environment: no torch, or the SDK would open a CUDA context in the handler.
FROM uv AS worker-env
COPY requirements.txt /build/requirements.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/worker --python /usr/bin/python3 && \
    uv pip install --python /opt/worker/bin/python --no-deps --require-hashes \
        -r /build/requirements.txt

# One torch for ComfyUI and the trainer, which see it through a .pth file: ComfyUI wants CUDA 13 on
# NVIDIA 20 series and up, and PyPI's wheels are that. TORCH_INDEX takes the same versions from
# another index, whose hashes are not pinned: https://download.pytorch.org/whl/cu128 for a driver
# older than 580 (slower), .../cpu to try the image. The wheels bring CUDA's libraries.
FROM uv AS torch
ARG TORCH_INDEX=""
COPY builder/locks/torch.in builder/locks/torch.txt /build/
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ -n "${TORCH_INDEX}" ]; then \
        set -- --index-url "${TORCH_INDEX}" -r /build/torch.in; \
    else \
        set -- --no-deps --require-hashes -r /build/torch.txt; \
    fi && \
    uv pip install --python /usr/bin/python3 --target /opt/torch "$@"
# hadolint ignore=DL3008 # as above
RUN apt-get update && apt-get install -y --no-install-recommends git && \
    rm -rf /var/lib/apt/lists/*

# The commit is what this worker was tested against, and a hash of all that is in it: 0.33.0 and the
# nine days that followed it on the main branch.
FROM torch AS comfyui
ARG COMFYUI_COMMIT=783545f689a0af730065994b46b382ae24844c99
RUN git init -q /comfyui && \
    git -C /comfyui fetch -q --depth 1 https://github.com/comfyanonymous/ComfyUI "${COMFYUI_COMMIT}" && \
    git -C /comfyui checkout -q FETCH_HEAD && \
    rm -rf /comfyui/.git
COPY builder/locks/comfyui.txt /build/comfyui.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/comfyui --python /usr/bin/python3 && \
    echo /opt/torch >"$(echo /opt/comfyui/lib/python3*/site-packages)/torch.pth" && \
    uv pip install --python /opt/comfyui/bin/python --no-deps --require-hashes \
        -r /build/comfyui.txt && \
    ln -s /opt/comfyui /comfyui/.venv
WORKDIR /comfyui
RUN .venv/bin/python main.py --cpu --quick-test-for-ci --disable-api-nodes \
        --database-url sqlite:///:memory: && \
    .venv/bin/python -m compileall -q /comfyui /opt/torch

# v0.10.1
FROM torch AS sd-scripts
ARG SD_SCRIPTS_COMMIT=ae72efb92babe89ff8e70f057e42db68440e8d61
RUN git init -q /opt/sd-scripts && \
    git -C /opt/sd-scripts fetch -q --depth 1 https://github.com/kohya-ss/sd-scripts "${SD_SCRIPTS_COMMIT}" && \
    git -C /opt/sd-scripts checkout -q FETCH_HEAD && \
    rm -rf /opt/sd-scripts/.git
COPY builder/locks/sd-scripts.txt /build/sd-scripts.txt
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/sd-scripts/.venv --python /usr/bin/python3 && \
    echo /opt/torch >"$(echo /opt/sd-scripts/.venv/lib/python3*/site-packages)/torch.pth" && \
    uv pip install --python /opt/sd-scripts/.venv/bin/python --no-deps --require-hashes \
        -r /build/sd-scripts.txt
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

# What every variant has. All of it belongs to root: the worker writes below /tmp/worker alone.
FROM base AS variant-base
COPY --from=comfyui /opt/torch /opt/torch
COPY --from=comfyui /opt/comfyui /opt/comfyui
COPY --from=comfyui /comfyui /comfyui
COPY --from=worker-env /opt/worker /opt/worker
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HUB_OFFLINE=1 \
    PATH=/opt/worker/bin:/usr/local/bin:/usr/bin:/bin \
    COMFYUI_DIR=/comfyui \
    COMFYUI_PORT=8188 \
    WORKER_TASKS=image,video,characters,health

FROM variant-base AS variant-sdxl
COPY --from=models-sdxl /models /comfyui/models

FROM variant-base AS variant-train
COPY --from=sd-scripts /opt/sd-scripts /opt/sd-scripts
COPY --from=models-train /models /comfyui/models
# hadolint ignore=DL3064 # a tokenizer's folder is no secret
ENV WORKER_TASKS=image,video,train,characters,health \
    KOHYA_DIR=/opt/sd-scripts \
    KOHYA_TOKENIZERS=/comfyui/models/tokenizers \
    TAGGER_DIR=/comfyui/models/taggers/wd-swinv2-tagger-v3

FROM variant-train AS variant-full
COPY --from=models-sdxl /models /comfyui/models
COPY --from=models-svd /models /comfyui/models

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
COPY handler.py errors.py test_input.json LICENSE NOTICE ./
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
ENV HOST=0.0.0.0 PORT=8080 PATH=/opt/worker/bin:/usr/local/bin:/usr/bin:/bin
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
ARG SOURCE=""
LABEL org.opencontainers.image.title="Characters on RunPod" \
    org.opencontainers.image.description="RunPod serverless worker: train a character, then pictures and videos of it" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-only" \
    org.opencontainers.image.source="${SOURCE}" \
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
