#!/bin/sh
# Smoke test of a built image with the real ComfyUI, on the CPU: it starts beside a real S3 server,
# becomes healthy, and answers a health job through the SDK's local mode.
set -eu
image=$1
network=smoke-$$
s3=s3-$$
worker=worker-$$
identities=$(mktemp)
trap 'docker rm --force "$worker" "$s3" >/dev/null 2>&1; docker network rm "$network" >/dev/null 2>&1; rm -f "$identities"' EXIT

cat >"$identities" <<'END'
{"identities": [{"name": "worker",
  "credentials": [{"accessKey": "smoke", "secretKey": "smoke-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
END
chmod 644 "$identities"

docker network create "$network" >/dev/null
docker run --detach --name "$s3" --network "$network" \
    --volume "$identities:/etc/seaweedfs/s3.json:ro" \
    chrislusf/seaweedfs:4.48@sha256:4e61d15fd35994cb1e43e1e553dff106794841fd9a99ade2fc8c8bfce4d7872d server -dir=/data -s3 -s3.port=8333 \
    -s3.config=/etc/seaweedfs/s3.json -master.telemetry=false -ip.bind=0.0.0.0 >/dev/null

settings="--env S3_ENDPOINT_URL=http://$s3:8333 --env S3_BUCKET=characters
    --env S3_ACCESS_KEY_ID=smoke --env S3_SECRET_ACCESS_KEY=smoke-secret
    --env S3_ADDRESSING_STYLE=path"

# shellcheck disable=SC2086 # a list of options without spaces in their values
docker run --rm --network "$network" $settings "$image" /opt/worker/bin/python -m builder.make_bucket

# shellcheck disable=SC2086
docker run --name "$worker" --network "$network" $settings "$image" \
    /opt/worker/bin/python handler.py --test_input '{"input": {"task": "health"}}' | tee smoke.log
grep -q "'ok': True" smoke.log
grep -q "completed successfully" smoke.log
