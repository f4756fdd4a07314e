"""Graphs small enough for a real model on a CPU: 64 x 64 pixels, two steps."""

from typing import Any

from tests.conformance.conversation import Graph


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def two_colours(prefix: str, colour: int = 0x227BDF) -> Graph:
    """Two plain pictures: no model needed."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=2, color=colour),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def picture(prefix: str, *, seed: int, steps: int = 2) -> Graph:
    """Text to image."""
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="tiny_sdxl.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", text="a photo of ohwx person", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="bad", clip=["4", 1]),
        "3": node(
            "KSampler",
            seed=seed,
            steps=steps,
            cfg=5.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix=prefix),
    }


def picture_with_lora(prefix: str, lora: str, *, seed: int) -> Graph:
    """Text to image with one LoRA."""
    graph = picture(prefix, seed=seed)
    graph["10"] = node(
        "LoraLoader",
        lora_name=lora,
        strength_model=0.8,
        strength_clip=0.8,
        model=["4", 0],
        clip=["4", 1],
    )
    graph["3"]["inputs"]["model"] = ["10", 0]
    return graph


def picture_from_picture(prefix: str, image: str, *, seed: int) -> Graph:
    """Image to image."""
    graph = picture(prefix, seed=seed)
    graph["5"] = node("VAEEncode", pixels=["11", 0], vae=["4", 2])
    graph["11"] = node("LoadImage", image=image)
    graph["3"]["inputs"]["denoise"] = 0.5
    return graph


def videos(prefix: str) -> Graph:
    """Every way to save a video, of plain frames."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=3, color=0xAA3311),
        "2": node("CreateVideo", images=["1", 0], fps=6),
        "3": node(
            "SaveVideo",
            video=["2", 0],
            filename_prefix=f"{prefix}/mp4",
            format="mp4",
            **{"format.codec": "h264"},
        ),
        "4": node(
            "SaveWEBM",
            images=["1", 0],
            filename_prefix=f"{prefix}/webm",
            codec="vp9",
            fps=6,
            crf=32,
        ),
        "5": node(
            "SaveAnimatedWEBP",
            images=["1", 0],
            filename_prefix=f"{prefix}/webp",
            fps=6,
            lossless=False,
            quality=80,
            method="default",
        ),
    }


def video_from_picture(prefix: str, image: str) -> Graph:
    """Stable Video Diffusion: three frames from a start picture."""
    return {
        "1": node("ImageOnlyCheckpointLoader", ckpt_name="tiny_svd.safetensors"),
        "2": node("LoadImage", image=image),
        "3": node(
            "SVD_img2vid_Conditioning",
            clip_vision=["1", 1],
            init_image=["2", 0],
            vae=["1", 2],
            width=64,
            height=64,
            video_frames=3,
            motion_bucket_id=127,
            fps=6,
            augmentation_level=0.0,
        ),
        "4": node("VideoLinearCFGGuidance", model=["1", 0], min_cfg=1.0),
        "5": node(
            "KSampler",
            seed=1,
            steps=2,
            cfg=2.5,
            sampler_name="euler",
            scheduler="karras",
            denoise=1.0,
            model=["4", 0],
            positive=["3", 0],
            negative=["3", 1],
            latent_image=["3", 2],
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("CreateVideo", images=["6", 0], fps=6),
        "8": node(
            "SaveVideo",
            video=["7", 0],
            filename_prefix=prefix,
            format="mp4",
            **{"format.codec": "h264"},
        ),
    }


def training(folder: str, prefix: str) -> Graph:
    """A LoRA of rank 2 from the pictures in a folder, two steps."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="tiny_sdxl.safetensors"),
        "2": node("LoadImageTextDataSetFromFolder", folder=folder),
        "3": node(
            "MakeTrainingDataset", images=["2", 0], vae=["1", 2], clip=["1", 1], texts=["2", 1]
        ),
        "4": node(
            "TrainLoraNode",
            model=["1", 0],
            latents=["3", 0],
            positive=["3", 1],
            batch_size=1,
            grad_accumulation_steps=1,
            steps=2,
            learning_rate=0.0005,
            rank=2,
            optimizer="AdamW",
            loss_function="MSE",
            seed=5,
            training_dtype="bf16",
            lora_dtype="bf16",
            quantized_backward=False,
            algorithm="LoRA",
            gradient_checkpointing=True,
            checkpoint_depth=2,
            offloading=False,
            existing_lora="[None]",
            bucket_mode=False,
            bypass_mode=True,
        ),
        "5": node("SaveLoRA", lora=["4", 0], prefix=prefix, steps=["4", 2]),
    }
