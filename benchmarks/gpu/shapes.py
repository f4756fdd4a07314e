"""Tensor names and shapes of SDXL and SVD checkpoints, derived from their architectures; pure.

Sources: Stability-AI/generative-models, `configs/inference/sd_xl_base.yaml` and `svd.yaml` (UNets
and autoencoders), OpenAI's CLIP ViT-L/14 and LAION's ViT-bigG-14 and ViT-H-14 (encoders). Speed and
memory follow from shapes, not from values, so weights of these shapes stand for the real ones.
`multipliers` of (1, 1, 1) and (1, 1, 1, 1) make UNets small enough for a CPU that ComfyUI still
recognises; encoders and autoencoders keep their sizes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

Shapes = dict[str, tuple[int, ...]]
_Named = Iterator[tuple[str, tuple[int, ...]]]

_CHANNELS: Final = 320
_EMBEDDING: Final = 4 * _CHANNELS
_RESIDUALS: Final = 2
_VAE_WIDTHS: Final = (128, 256, 512, 512)


@dataclass(frozen=True, slots=True)
class UNet:
    """One UNet: `depths` are transformer blocks a level, `temporal` adds SVD's layers over time."""

    inputs: int
    context: int
    label: int
    multipliers: tuple[int, ...]
    depths: tuple[int, ...]
    temporal: bool


def sdxl_unet(*, small: bool = False) -> UNet:
    """SDXL's UNet: 2.57 billion parameters."""
    return UNet(4, 2048, 2816, (1, 1, 1) if small else (1, 2, 4), (0, 2, 10), temporal=False)


def svd_unet(*, small: bool = False) -> UNet:
    """SVD's UNet: 1.52 billion parameters."""
    multipliers = (1, 1, 1, 1) if small else (1, 2, 4, 4)
    return UNet(8, 1024, 768, multipliers, (1, 1, 1, 0), temporal=True)


def sdxl(*, small: bool = False) -> Shapes:
    """An SDXL checkpoint: UNet, both text encoders, autoencoder."""
    return dict(
        (
            *_below("model.diffusion_model.", unet(sdxl_unet(small=small))),
            *_below("conditioner.embedders.0.transformer.text_model.", _clip_l()),
            *_below("conditioner.embedders.1.model.", _clip_g()),
            *_below("first_stage_model.", _autoencoder(temporal=False)),
        )
    )


def svd(*, small: bool = False) -> Shapes:
    """An SVD checkpoint: UNet, picture encoder, autoencoder with a decoder over time."""
    encoder = "conditioner.embedders.0.open_clip.model.visual."
    return dict(
        (
            *_below("model.diffusion_model.", unet(svd_unet(small=small))),
            *_below(encoder, _clip_vision()),
            *_below("first_stage_model.", _autoencoder(temporal=True)),
        )
    )


def unet(of: UNet) -> _Named:
    """Every tensor of a UNet, its encoder half first."""
    yield from _linear("time_embed.0", _CHANNELS, _EMBEDDING)
    yield from _linear("time_embed.2", _EMBEDDING, _EMBEDDING)
    yield from _linear("label_emb.0.0", of.label, _EMBEDDING)
    yield from _linear("label_emb.0.2", _EMBEDDING, _EMBEDDING)
    yield from _conv("input_blocks.0.0", of.inputs, _CHANNELS)
    width, number, left = _CHANNELS, 0, [_CHANNELS]
    for level, multiplier in enumerate(of.multipliers):
        for _ in range(_RESIDUALS):
            number += 1
            target = multiplier * _CHANNELS
            at = f"input_blocks.{number}"
            yield from _residual(f"{at}.0", width, target, of)
            yield from _transformer(f"{at}.1", target, of.depths[level], of)
            width = target
            left.append(width)
        if level + 1 < len(of.multipliers):
            number += 1
            yield from _conv(f"input_blocks.{number}.0.op", width, width)
            left.append(width)
    yield from _residual("middle_block.0", width, width, of)
    yield from _transformer("middle_block.1", width, max(of.depths[-1], 1), of)
    yield from _residual("middle_block.2", width, width, of)
    yield from _decoder_half(of, width, left)
    yield from _norm("out.0", _CHANNELS)
    yield from _conv("out.2", _CHANNELS, 4)


def _decoder_half(of: UNet, width: int, left: list[int]) -> _Named:
    number = 0
    for level, multiplier in reversed(tuple(enumerate(of.multipliers))):
        for index in range(_RESIDUALS + 1):
            target, depth, at = multiplier * _CHANNELS, of.depths[level], f"output_blocks.{number}"
            yield from _residual(f"{at}.0", width + left.pop(), target, of)
            yield from _transformer(f"{at}.1", target, depth, of)
            width, number = target, number + 1
            if level and index == _RESIDUALS:
                yield from _conv(f"{at}.{2 if depth else 1}.conv", width, width)


def _residual(at: str, inputs: int, width: int, of: UNet) -> _Named:
    yield from _residual_layers(at, inputs, width, (3, 3))
    if inputs != width:
        yield from _conv(f"{at}.skip_connection", inputs, width, (1, 1))
    if of.temporal:
        yield from _residual_layers(f"{at}.time_stack", width, width, (3, 1, 1))
        yield f"{at}.time_mixer.mix_factor", (1,)


def _residual_layers(at: str, inputs: int, width: int, kernel: tuple[int, ...]) -> _Named:
    yield from _norm(f"{at}.in_layers.0", inputs)
    yield from _conv(f"{at}.in_layers.2", inputs, width, kernel)
    yield from _linear(f"{at}.emb_layers.1", _EMBEDDING, width)
    yield from _norm(f"{at}.out_layers.0", width)
    yield from _conv(f"{at}.out_layers.3", width, width, kernel)


def _transformer(at: str, width: int, depth: int, of: UNet) -> _Named:
    if not depth:
        return
    yield from _norm(f"{at}.norm", width)
    yield from _linear(f"{at}.proj_in", width, width)
    for index in range(depth):
        yield from _block(f"{at}.transformer_blocks.{index}", width, of.context)
        if of.temporal:
            yield from _norm(f"{at}.time_stack.{index}.norm_in", width)
            yield from _feed_forward(f"{at}.time_stack.{index}.ff_in", width)
            yield from _block(f"{at}.time_stack.{index}", width, of.context)
    yield from _linear(f"{at}.proj_out", width, width)
    if of.temporal:
        yield from _linear(f"{at}.time_pos_embed.0", width, 4 * width)
        yield from _linear(f"{at}.time_pos_embed.2", 4 * width, width)
        yield f"{at}.time_mixer.mix_factor", (1,)


def _block(at: str, width: int, context: int) -> _Named:
    for attention, source in (("attn1", width), ("attn2", context)):
        yield f"{at}.{attention}.to_q.weight", (width, width)
        yield f"{at}.{attention}.to_k.weight", (width, source)
        yield f"{at}.{attention}.to_v.weight", (width, source)
        yield from _linear(f"{at}.{attention}.to_out.0", width, width)
    yield from _feed_forward(f"{at}.ff", width)
    for number in (1, 2, 3):
        yield from _norm(f"{at}.norm{number}", width)


def _feed_forward(at: str, width: int) -> _Named:
    yield from _linear(f"{at}.net.0.proj", width, 8 * width)  # gated: twice four times the width
    yield from _linear(f"{at}.net.2", 4 * width, width)


def _clip_l() -> _Named:
    width = 768
    yield "embeddings.token_embedding.weight", (49408, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for layer in range(12):
        at = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{at}.self_attn.{part}", width, width)
        yield from _norm(f"{at}.layer_norm1", width)
        yield from _norm(f"{at}.layer_norm2", width)
        yield from _linear(f"{at}.mlp.fc1", width, 4 * width)
        yield from _linear(f"{at}.mlp.fc2", 4 * width, width)
    yield from _norm("final_layer_norm", width)


def _clip_g() -> _Named:
    width = 1280
    yield "logit_scale", ()
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "token_embedding.weight", (49408, width)
    yield from _open_clip_layers(width, 32)
    yield from _norm("ln_final", width)


def _clip_vision() -> _Named:
    width = 1280
    yield "class_embedding", (width,)
    yield "positional_embedding", (257, width)
    yield "proj", (width, 1024)
    yield "conv1.weight", (width, 3, 14, 14)
    yield from _norm("ln_pre", width)
    yield from _open_clip_layers(width, 32)
    yield from _norm("ln_post", width)


def _open_clip_layers(width: int, layers: int) -> _Named:
    for layer in range(layers):
        at = f"transformer.resblocks.{layer}"
        yield f"{at}.attn.in_proj_weight", (3 * width, width)
        yield f"{at}.attn.in_proj_bias", (3 * width,)
        yield from _linear(f"{at}.attn.out_proj", width, width)
        yield from _norm(f"{at}.ln_1", width)
        yield from _norm(f"{at}.ln_2", width)
        yield from _linear(f"{at}.mlp.c_fc", width, 4 * width)
        yield from _linear(f"{at}.mlp.c_proj", 4 * width, width)


def _autoencoder(*, temporal: bool) -> _Named:
    widths, deepest = _VAE_WIDTHS, _VAE_WIDTHS[-1]
    yield from _conv("encoder.conv_in", 3, widths[0])
    before = widths[0]
    for level, width in enumerate(widths):
        for index in range(_RESIDUALS):
            yield from _vae_block(f"encoder.down.{level}.block.{index}", before, width)
            before = width
        if level + 1 < len(widths):
            yield from _conv(f"encoder.down.{level}.downsample.conv", width, width)
    yield from _vae_middle("encoder", deepest, temporal=False)
    yield from _norm("encoder.norm_out", deepest)
    yield from _conv("encoder.conv_out", deepest, 8)
    yield from _conv("decoder.conv_in", 4, deepest)
    yield from _vae_middle("decoder", deepest, temporal=temporal)
    for level, width in reversed(tuple(enumerate(widths))):
        for index in range(_RESIDUALS + 1):
            at = f"decoder.up.{level}.block.{index}"
            yield from _vae_block(at, before, width, temporal=temporal)
            before = width
        if level:
            yield from _conv(f"decoder.up.{level}.upsample.conv", width, width)
    yield from _norm("decoder.norm_out", widths[0])
    yield from _conv("decoder.conv_out", widths[0], 3)
    if temporal:  # it decodes frames together, and its encoder quantises nothing
        yield from _conv("decoder.conv_out.time_mix_conv", 3, 3, (3, 1, 1))
        return
    yield from _conv("quant_conv", 8, 8, (1, 1))
    yield from _conv("post_quant_conv", 4, 4, (1, 1))


def _vae_middle(at: str, width: int, *, temporal: bool) -> _Named:
    yield from _vae_block(f"{at}.mid.block_1", width, width, temporal=temporal)
    yield from _norm(f"{at}.mid.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{at}.mid.attn_1.{part}", width, width, (1, 1))
    yield from _vae_block(f"{at}.mid.block_2", width, width, temporal=temporal)


def _vae_block(at: str, inputs: int, width: int, *, temporal: bool = False) -> _Named:
    yield from _norm(f"{at}.norm1", inputs)
    yield from _conv(f"{at}.conv1", inputs, width)
    yield from _norm(f"{at}.norm2", width)
    yield from _conv(f"{at}.conv2", width, width)
    if inputs != width:
        yield from _conv(f"{at}.nin_shortcut", inputs, width, (1, 1))
    if temporal:
        yield from _norm(f"{at}.time_stack.in_layers.0", width)
        yield from _conv(f"{at}.time_stack.in_layers.2", width, width, (3, 1, 1))
        yield from _norm(f"{at}.time_stack.out_layers.0", width)
        yield from _conv(f"{at}.time_stack.out_layers.3", width, width, (3, 1, 1))
        yield f"{at}.mix_factor", (1,)


def _linear(at: str, inputs: int, outputs: int) -> _Named:
    yield f"{at}.weight", (outputs, inputs)
    yield f"{at}.bias", (outputs,)


def _conv(at: str, inputs: int, outputs: int, kernel: tuple[int, ...] = (3, 3)) -> _Named:
    yield f"{at}.weight", (outputs, inputs, *kernel)
    yield f"{at}.bias", (outputs,)


def _norm(at: str, width: int) -> _Named:
    yield f"{at}.weight", (width,)
    yield f"{at}.bias", (width,)


def _below(prefix: str, tensors: _Named) -> _Named:
    return ((prefix + name, shape) for name, shape in tensors)
