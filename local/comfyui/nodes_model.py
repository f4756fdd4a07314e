"""Nodes around the model: loaders, LoRAs, prompts, latents, the sampler, the VAE."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from PIL import ImageOps
from safetensors import safe_open

from local.comfyui.node import Inputs, NodeFunction, Output, Run
from local.comfyui.values import Conditioning, Latent, Lora, Model, Pictures, Request


def load_checkpoint(run: Run, inputs: Inputs) -> Output:
    """CheckpointLoaderSimple, ImageOnlyCheckpointLoader: a model, its encoder and its VAE."""
    name = inputs["ckpt_name"]
    run.folders.model("checkpoints", name)
    time.sleep(run.faults.latency_s("load_latency_s"))
    return Output((Model(name), Model(name), Model(name)))


def load_unet(_run: Run, inputs: Inputs) -> Output:
    """UNETLoader: a diffusion model alone."""
    return Output((Model(inputs["unet_name"]),))


def load_named(_run: Run, inputs: Inputs) -> Output:
    """Loaders of one file by name: encoders, VAEs, ControlNets, upscalers."""
    return Output((Model(next(str(value) for value in inputs.values())),))


def load_lora(run: Run, inputs: Inputs) -> Output:
    """LoraLoader and its variants: the file must be there and be safetensors."""
    lora = _lora(run, inputs)
    model: Model = inputs["model"]
    if "clip" not in inputs:
        return Output((model.with_lora(lora),))
    clip: Model = inputs["clip"]
    clip_lora = Lora(lora.name, inputs["strength_clip"])
    return Output((model.with_lora(lora), clip.with_lora(clip_lora)))


def same_model(_run: Run, inputs: Inputs) -> Output:
    """Nodes that change how a model is used, which does not show here."""
    return Output((inputs["model"],))


def set_last_layer(_run: Run, inputs: Inputs) -> Output:
    """CLIPSetLastLayer: the encoder as it was."""
    return Output((inputs["clip"],))


def encode_text(_run: Run, inputs: Inputs) -> Output:
    """CLIPTextEncode."""
    return Output((Conditioning(inputs["text"]),))


def encode_text_sdxl(_run: Run, inputs: Inputs) -> Output:
    """CLIPTextEncodeSDXL: two prompts, shown as one where they are the same."""
    texts = dict.fromkeys((inputs["text_g"], inputs["text_l"]))
    return Output((Conditioning(" / ".join(texts)),))


def empty_latent(_run: Run, inputs: Inputs) -> Output:
    """EmptyLatentImage and its variants."""
    return Output((Latent(inputs["width"], inputs["height"], inputs["batch_size"]),))


def encode_pixels(_run: Run, inputs: Inputs) -> Output:
    """VAEEncode: sizes are cut to multiples of 8 as by the real VAE."""
    pictures: Pictures = inputs["pixels"]
    width, height = (side // 8 * 8 for side in pictures.size)
    return Output((Latent(width, height, len(pictures.frames), origin=pictures.frames),))


def repeat_latent(_run: Run, inputs: Inputs) -> Output:
    """RepeatLatentBatch."""
    latent: Latent = inputs["samples"]
    return Output((replace(latent, count=latent.count * inputs["amount"]),))


def latent_from_batch(_run: Run, inputs: Inputs) -> Output:
    """LatentFromBatch: some of a batch."""
    latent: Latent = inputs["samples"]
    start = min(inputs["batch_index"], latent.count - 1)
    length = min(inputs["length"], latent.count - start)
    return Output((replace(latent, count=length, origin=latent.origin[start : start + length]),))


def upscale_latent_by(_run: Run, inputs: Inputs) -> Output:
    """LatentUpscaleBy."""
    latent: Latent = inputs["samples"]
    width, height = (
        round(side / 8 * inputs["scale_by"]) * 8 for side in (latent.width, latent.height)
    )
    return Output((replace(latent, width=width, height=height),))


def upscale_latent(_run: Run, inputs: Inputs) -> Output:
    """LatentUpscale: to a size in pixels."""
    latent: Latent = inputs["samples"]
    width, height = inputs["width"] // 8 * 8, inputs["height"] // 8 * 8
    return Output((replace(latent, width=width or latent.width, height=height or latent.height),))


def sample(run: Run, inputs: Inputs) -> Output:
    """KSampler and its variants: takes its time step by step, and notes what was asked."""
    steps = inputs["steps"]
    for step in range(1, steps + 1):
        run.step(step, steps)
    return Output((_sampled(inputs, inputs["latent_image"]),))


def sample_custom(run: Run, inputs: Inputs) -> Output:
    """SamplerCustom: the same with its steps and sampler from other nodes."""
    given = {
        **inputs,
        "steps": inputs["sigmas"],
        "sampler_name": inputs["sampler"],
        "scheduler": "custom",
    }
    (latent,) = sample(run, given).values
    return Output((latent, latent))


def sample_guided(run: Run, inputs: Inputs) -> Output:
    """SamplerCustomAdvanced: noise, guidance, sampler and steps each from a node of its own."""
    given = {**inputs, **inputs["guider"], "noise_seed": inputs["noise"]}
    return sample_custom(run, given)


def guide(_run: Run, inputs: Inputs) -> Output:
    """BasicGuider, CFGGuider: a model with its prompts."""
    one: Conditioning | None = inputs.get("conditioning")
    both = {"positive": one, "negative": Conditioning(""), "cfg": 1.0} if one else {}
    return Output(({**inputs, **both},))


def random_noise(_run: Run, inputs: Inputs) -> Output:
    """RandomNoise: a seed."""
    return Output((inputs["noise_seed"],))


def masked_latent(_run: Run, inputs: Inputs) -> Output:
    """SetLatentNoiseMask: where it is changed does not show here."""
    return Output((inputs["samples"],))


def select_sampler(_run: Run, inputs: Inputs) -> Output:
    """KSamplerSelect: a sampler by its name."""
    return Output((inputs["sampler_name"],))


def schedule(_run: Run, inputs: Inputs) -> Output:
    """LTXVScheduler, BasicScheduler: of the noise levels only their number matters here."""
    return Output((inputs["steps"],))


def decode(run: Run, inputs: Inputs) -> Output:
    """VAEDecode: this is where the picture is painted."""
    time.sleep(run.faults.latency_s("decode_latency_s"))
    return Output((Pictures(run.context.painter.paint(inputs["samples"])),))


def conditioning_pair(_run: Run, inputs: Inputs) -> Output:
    """Nodes that add guidance to both prompts, which does not show here."""
    return Output((inputs["positive"], inputs["negative"]))


def inpaint_conditioning(run: Run, inputs: Inputs) -> Output:
    """InpaintModelConditioning: both prompts, and the picture as a latent."""
    latent = encode_pixels(run, inputs).values[0]
    return Output((inputs["positive"], inputs["negative"], latent))


def _sampled(inputs: Inputs, latent: Latent) -> Latent:
    positive: Conditioning = inputs["positive"]
    request = Request(
        model=inputs["model"],
        positive=positive,
        negative=inputs["negative"],
        seed=inputs.get("seed", inputs.get("noise_seed", 0)),
        steps=inputs["steps"],
        cfg=inputs["cfg"],
        sampler=f"{inputs['sampler_name']} {inputs['scheduler']}",
        denoise=inputs.get("denoise", 1.0),
    )
    if positive.start is None or not latent.video:
        return replace(latent, request=request)
    start = ImageOps.fit(positive.start, (latent.width, latent.height))
    return replace(latent, request=request, origin=(start,))


def _lora(run: Run, inputs: Inputs) -> Lora:
    name, strength = inputs["lora_name"], inputs["strength_model"]
    if strength or inputs.get("strength_clip"):
        with safe_open(run.folders.model("loras", name), framework="np") as tensors:
            tensors.keys()
    return Lora(name, strength)


_SAMPLERS: Final[Mapping[str, NodeFunction]] = {
    "BasicGuider": guide,
    "BasicScheduler": schedule,
    "CFGGuider": guide,
    "KSampler": sample,
    "KSamplerAdvanced": sample,
    "KSamplerSelect": select_sampler,
    "LTXVScheduler": schedule,
    "RandomNoise": random_noise,
    "SamplerCustom": sample_custom,
    "SamplerCustomAdvanced": sample_guided,
}
_LOADERS: Final[Mapping[str, NodeFunction]] = {
    "CLIPLoader": load_named,
    "CLIPVisionLoader": load_named,
    "CheckpointLoaderSimple": load_checkpoint,
    "ControlNetLoader": load_named,
    "DualCLIPLoader": load_named,
    "ImageOnlyCheckpointLoader": load_checkpoint,
    "LoraLoader": load_lora,
    "LoraLoaderBypass": load_lora,
    "LoraLoaderBypassModelOnly": load_lora,
    "LoraLoaderModelOnly": load_lora,
    "UNETLoader": load_unet,
    "UpscaleModelLoader": load_named,
    "VAELoader": load_named,
}
NODES: Final[Mapping[str, NodeFunction]] = {
    **_LOADERS,
    **_SAMPLERS,
    "CLIPSetLastLayer": set_last_layer,
    "CLIPTextEncode": encode_text,
    "CLIPTextEncodeSDXL": encode_text_sdxl,
    "CLIPVisionEncode": load_named,
    "ControlNetApplyAdvanced": conditioning_pair,
    "EmptyLatentImage": empty_latent,
    "EmptySD3LatentImage": empty_latent,
    "InpaintModelConditioning": inpaint_conditioning,
    "LTXVConditioning": conditioning_pair,
    "LatentFromBatch": latent_from_batch,
    "LatentUpscale": upscale_latent,
    "LatentUpscaleBy": upscale_latent_by,
    "ModelSamplingLTXV": same_model,
    "ModelSamplingSD3": same_model,
    "RepeatLatentBatch": repeat_latent,
    "SetLatentNoiseMask": masked_latent,
    "VAEDecode": decode,
    "VAEDecodeTiled": decode,
    "VAEEncode": encode_pixels,
    "VAEEncodeForInpaint": encode_pixels,
    "VAEEncodeTiled": encode_pixels,
    "VideoLinearCFGGuidance": same_model,
    "VideoTriangleCFGGuidance": same_model,
}
