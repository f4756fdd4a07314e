#!/bin/sh
# The newest tagged release of a repository, with its own requirements and torch for the CPU.
#   newest.sh URL FOLDER
set -eu
url=$1
folder=$2
tag=$(git ls-remote --tags --refs "$url" 'v*' | sed 's|.*refs/tags/||' |
    grep -E '^v[0-9]+(\.[0-9]+)+$' | sort -V | tail -n 1)
echo "$url $tag"
git clone -q --depth 1 --branch "$tag" "$url" "$folder"
python3 -m venv "$folder/.venv"
"$folder/.venv/bin/pip" install -q torch torchvision torchaudio \
    --index-url https://download.pytorch.org/whl/cpu
cd "$folder" # sd-scripts' requirements name the folder itself
.venv/bin/pip install -q -r requirements.txt
