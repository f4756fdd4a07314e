#!/bin/sh
# Smoke test of a built image with the real ComfyUI, on the CPU, beside a real S3 server: health says
# that every workflow's nodes are there and only models are missing; then a small picture is made of
# random weights, through the SDK's local mode, and fetched from the bucket.
#   smoke.sh IMAGE [ENGINE]     docker, or podman where that is what there is
set -eu
image=$1
engine=${2:-docker}
python=/opt/worker/bin/python
network=smoke-$$
s3=s3-$$
worker=worker-$$
scratch=$(mktemp -d)
seaweedfs=${SEAWEEDFS_IMAGE:-chrislusf/seaweedfs:4.48@sha256:4e61d15fd35994cb1e43e1e553dff106794841fd9a99ade2fc8c8bfce4d7872d}
trap '"$engine" rm --force "$worker" "$s3" >/dev/null 2>&1; "$engine" network rm "$network" >/dev/null 2>&1; rm -rf "$scratch"' EXIT

cat >"$scratch/s3.json" <<'END'
{"identities": [{"name": "worker",
  "credentials": [{"accessKey": "smoke", "secretKey": "smoke-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
chmod -R a+rX "$scratch"
mkdir -m 777 "$scratch/models" "$scratch/out"

# One network namespace, the S3 server's, so that no name has to be resolved.
"$engine" run --detach --name "$s3" \
    --volume "$scratch/s3.json:/etc/seaweedfs/s3.json:ro" \
    "$seaweedfs" server -dir=/data -s3 -s3.port=8333 \
    -s3.config=/etc/seaweedfs/s3.json -master.telemetry=false -ip.bind=0.0.0.0 >/dev/null

run() {
    "$engine" run --rm --name "$worker" --network "container:$s3" \
        --env S3_ENDPOINT_URL=http://127.0.0.1:8333 --env S3_BUCKET=characters \
        --env S3_ACCESS_KEY_ID=smoke --env S3_SECRET_ACCESS_KEY=smoke-secret \
        --env S3_ADDRESSING_STYLE=path --env LOCAL_RESULT_FILE=/out/result.json \
        --env MODELS_DIR=/models \
        --volume "$scratch/models:/models" --volume "$scratch/out:/out" "$@"
}

run "$image" "$python" -m builder.make_bucket

echo "== health"
run "$image" "$python" handler.py --test_input '{"input": {"task": "health"}}' >"$scratch/log" 2>&1 ||
    { cat "$scratch/log"; exit 1; }
# `ok` is false here, as it must be: there are no models. Nothing else may be wrong.
python3 - "$scratch/out/result.json" <<'END'
import json, sys
health = json.load(open(sys.argv[1]))
problems = {name: flow["problems"] for name, flow in health["workflows"].items() if not flow["ok"]}
other = {name: [text for text in texts if "is not there" not in text] for name, texts in problems.items()}
if any(other.values()) or not (health["comfyui"]["ok"] and health["storage"]["ok"]):
    sys.exit(f"not only models are missing: {json.dumps(health, indent=1)}")
print(f"ComfyUI {health['versions']}; {len(problems)} workflows lack models, and nothing else")
END

echo "== a picture of random weights"
run --volume "$PWD/builder:/tiny/builder:ro" --workdir /tiny "$image" \
    "$python" -m builder.tiny_checkpoint sdxl /models/checkpoints/sd_xl_base_1.0.safetensors
job='{"input": {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2, "seed": 7}}'
run "$image" "$python" handler.py --test_input "$job" >"$scratch/log" 2>&1 ||
    { cat "$scratch/log"; exit 1; }
url=$(python3 - "$scratch/out/result.json" <<'END'
import json, sys
(output,) = json.load(open(sys.argv[1]))["outputs"]
assert (output["width"], output["height"]) == (256, 256), output
print(output["url"])
END
)
run "$image" "$python" -c 'import sys, urllib.request
picture = urllib.request.urlopen(sys.argv[1]).read()
assert picture.startswith(b"\x89PNG"), picture[:80]
print(f"fetched a PNG of {len(picture):,} bytes")' "$url"
