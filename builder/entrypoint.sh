#!/bin/sh
# What tini starts: link models that a network volume or RunPod's model cache has, then become the
# worker, so that a stop signal reaches it. A volume that cannot be read stops nobody: the job that
# needs a model says which one is missing.
set -eu
/opt/worker/bin/python -m builder.link_models --into "${WORK_DIR:-/tmp/worker}/models" \
    --baked "${COMFYUI_DIR}/models" ||
    echo "entrypoint: no models could be linked from a volume" >&2
exec "$@"
