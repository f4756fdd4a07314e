// docker buildx bake [target]: every image is a variant of the Dockerfile's last stage.
//
//   worker        no models: a network volume's, or RunPod's cached models
//   worker-sdxl   SDXL baked in: pictures at once
//   worker-train  trainer, tokenizers, tagger; the checkpoint comes from a volume
//   worker-full   SDXL, SVD and the trainer: every task, no volume
//   gateway       the HTTP API and its page: no GPU, no models
//   worker-cpu    no models, torch without CUDA: for trying the image itself
//
// A gated model: HF_TOKEN=… docker buildx bake --set '*.secrets=id=hf_token,env=HF_TOKEN' worker-full

variable "REGISTRY" { default = "" }
variable "NAME" { default = "runpod-characters" }
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "unknown" }
variable "SOURCE" { default = "" }

group "default" {
  targets = ["worker-sdxl"]
}

group "all" {
  targets = ["worker", "worker-sdxl", "worker-train", "worker-full", "gateway"]
}

function "tags" {
  params = [suffix]
  result = ["${REGISTRY}${NAME}:${VERSION}${suffix}"]
}

target "_common" {
  context    = "."
  dockerfile = "Dockerfile"
  target     = "worker"
  platforms  = ["linux/amd64"]
  args = {
    VERSION  = VERSION
    REVISION = REVISION
    SOURCE   = SOURCE
  }
}

target "worker" {
  inherits = ["_common"]
  args     = { VARIANT = "base" }
  tags     = tags("")
}

target "worker-sdxl" {
  inherits = ["_common"]
  args     = { VARIANT = "sdxl" }
  tags     = tags("-sdxl")
}

target "worker-train" {
  inherits = ["_common"]
  args     = { VARIANT = "train" }
  tags     = tags("-train")
}

target "worker-full" {
  inherits = ["_common"]
  args     = { VARIANT = "full" }
  tags     = tags("-full")
}

target "worker-cpu" {
  inherits = ["_common"]
  args = {
    VARIANT      = "base"
    TORCH_INDEX  = "https://download.pytorch.org/whl/cpu"
    COMFYUI_ARGS = "--cpu"
  }
  tags = tags("-cpu")
}

target "gateway" {
  inherits = ["_common"]
  target   = "gateway"
  tags     = tags("-gateway")
}
