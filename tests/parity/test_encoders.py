"""The three frozen encoders against the public reference, on tiny weights of its own names, float32 on the CPU."""

from collections.abc import Callable

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from goldens import Golden, assert_close, golden, golden_json
from torch import Tensor

from adapt.backbones.dreamzero.encoders import image, text, video

LATENT_ATOL = 2e-5
PIXEL_ATOL = 1e-4
EMBEDDING_ATOL = 2e-5
VAES = [
    pytest.param("vae16", video.TINY_WAN21, id="wan21"),
    pytest.param("vae38", video.TINY_WAN22, id="wan22"),
]


def video_encoder(name: str, config: video.VideoConfig) -> tuple[Golden, video.VideoEncoder]:
    fixture = golden(f"encoder_{name}")
    weights = dict(fixture.under("w."))
    return fixture, video.VideoEncoder.load(weights, config, dtype=torch.float32)


@pytest.fixture(scope="module")
def t5() -> tuple[Golden, text.TextEncoder]:
    fixture = golden("encoder_t5")
    weights = dict(fixture.under("w."))
    return fixture, text.TextEncoder.load(weights, text.TINY_UMT5, dtype=torch.float32)


@pytest.fixture(scope="module")
def clip() -> tuple[Golden, image.ImageEncoder]:
    fixture = golden("encoder_clip_vision")
    weights = {f"visual.{name}": tensor for name, tensor in fixture.under("w.")}
    return fixture, image.ImageEncoder.load(weights, image.TINY_VIT, dtype=torch.float32)


@pytest.mark.parametrize(("name", "config"), VAES)
def test_latents_of_9_5_and_1_frames_are_the_references(name: str, config: video.VideoConfig) -> None:
    fixture, encoder = video_encoder(name, config)
    frames = fixture["in.video"]
    latents = encoder.encode(frames)
    assert_close(latents, fixture["out.latents"], atol=LATENT_ATOL)
    assert_close(video.denormalise(latents, config), fixture["out.latents_unnormalised"], atol=LATENT_ATOL)
    assert_close(encoder.encode(frames[:, :, :5]), fixture["out.latents_5frames"], atol=LATENT_ATOL)
    for key in ("out.latents_1frame", "out.first_frame_latent"):
        assert_close(encoder.encode(frames[:, :, :1]), fixture[key], atol=LATENT_ATOL, name=key)


@pytest.mark.parametrize(("name", "config"), VAES)
def test_first_frame_conditioning_is_the_references(name: str, config: video.VideoConfig) -> None:
    fixture, encoder = video_encoder(name, config)
    frames = fixture["in.video"]
    conditioning = encoder.first_frame(frames[:, :, 0], frames=frames.shape[2])
    assert_close(conditioning, fixture["out.y_from_first_frame"], atol=LATENT_ATOL)


@pytest.mark.parametrize(("name", "config"), VAES)
def test_decoded_pixels_are_the_references_before_and_after_clamping(name: str, config: video.VideoConfig) -> None:
    fixture, encoder = video_encoder(name, config)
    unclamped: list[Tensor] = []
    watch = encoder.model.decoder.register_forward_hook(lambda _module, _inputs, frames: unclamped.append(frames))
    pixels = encoder.decode(fixture["out.latents"] * 0.5 + 0.1)
    watch.remove()
    assert_close(pixels, fixture["out.decoded_clamped_from_half_latents_plus_0.1"], atol=PIXEL_ATOL)
    unfolded = unpatchify(torch.cat(unclamped, dim=2), config.patch)
    assert unfolded.abs().max() > 1.4
    assert_close(unfolded, fixture["out.decoded_unclamped"], atol=PIXEL_ATOL)


@pytest.mark.parametrize(("name", "config"), VAES)
def test_vae_constants_and_tiny_sizes_are_the_references(name: str, config: video.VideoConfig) -> None:
    notes = golden_json("encoders")[name]
    assert torch.equal(torch.tensor(config.mean), torch.tensor(notes["mean"]))
    assert torch.equal(torch.tensor(config.std), torch.tensor(notes["std"]))
    assert config.stride == notes["upsampling_factor"]
    sizes = notes["inner_constructor"]
    assert (config.base_dim, config.z_dim, config.res_blocks) == (sizes["dim"], sizes["z_dim"], sizes["num_res_blocks"])
    assert config.decoder_base_dim == sizes.get("dec_dim", sizes["dim"])
    assert list(config.dim_mult) == sizes["dim_mult"]
    assert list(video.TEMPORAL_DOWNSAMPLE) == sizes["temperal_downsample"]


def test_text_embeddings_are_the_references_with_and_without_a_mask(t5: tuple[Golden, text.TextEncoder]) -> None:
    fixture, encoder = t5
    ids, mask = fixture["in.ids"], fixture["in.mask"]
    with torch.no_grad():
        hidden = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert_close(hidden, fixture["out.embeddings"], atol=EMBEDDING_ATOL)
    unmasked = encoder.encode(ids, torch.ones_like(mask))
    assert_close(unmasked, fixture["out.embeddings_no_mask"], atol=EMBEDDING_ATOL)


def test_relative_position_buckets_are_the_references(t5: tuple[Golden, text.TextEncoder]) -> None:
    fixture, encoder = t5
    buckets = fixture["out.relative_position_bucket_300x300_row0_row150_row299"]
    for layer in encoder.model.encoder.block:
        attention = layer.layer[0].SelfAttention
        bias = attention.compute_bias(300, 300)[0].permute(1, 2, 0)[[0, 150, 299]]
        assert torch.equal(bias, attention.relative_attention_bias.weight[buckets])


def test_each_prompt_keeps_its_own_length_where_the_reference_cuts_all_to_the_shortest(
    t5: tuple[Golden, text.TextEncoder],
) -> None:
    """The reference zeroes from every sample's length on in every sample, so 271 tokens beside 23 become 23.

    Up to row 23 both agree. From there to row 271 we keep what the long prompt's own embeddings are.
    """
    fixture, encoder = t5
    ids, mask = fixture["in.ids"], fixture["in.mask"]
    reference = fixture.raw("out.encode_prompt_bf16")
    short, long = mask.sum(dim=1).tolist()
    assert (short, long) == (23, 271)
    ours = encoder.encode(ids, mask).bfloat16()

    assert_close(ours[0], reference[0], atol=EMBEDDING_ATOL, name="the shortest prompt, every row")
    assert_close(ours[1, :short], reference[1, :short], atol=EMBEDDING_ATOL, name="the long prompt, first rows")
    assert not reference[1, short:].any()
    assert_close(ours[1, short:long].float(), fixture["out.embeddings"][1, short:long], atol=2e-2)
    assert ours[1, short:long].abs().amax(dim=-1).min() > 0.1
    assert not ours[0, short:].any() and not ours[1, long:].any()

    with_the_defect = ours.clone()
    for length in (short, long):
        with_the_defect[:, length:] = 0
    assert_close(with_the_defect, reference, atol=EMBEDDING_ATOL, name="the reference's rule applied")


def test_tiny_text_encoder_has_the_references_sizes() -> None:
    sizes, config = golden_json("encoders")["t5"]["constructor"], text.TINY_UMT5
    assert (config.vocab, config.dim, config.attn_dim) == (sizes["vocab"], sizes["dim"], sizes["dim_attn"])
    assert (config.ffn_dim, config.heads, config.layers) == (sizes["dim_ffn"], sizes["num_heads"], sizes["num_layers"])
    assert config.buckets == sizes["num_buckets"] and not sizes["shared_pos"]


def test_pictures_are_resized_and_normalised_as_the_reference_does(clip: tuple[Golden, image.ImageEncoder]) -> None:
    fixture, encoder = clip
    pictures = fixture["in.images_bvchw_minus1_1"][:, 0]
    resized = image.resize(pictures, encoder.config)
    assert_close(resized, fixture["out.resized_before_normalisation"], atol=EMBEDDING_ATOL)
    assert_close(image.preprocess(pictures, encoder.config), fixture["out.pixel_values"], atol=EMBEDDING_ATOL)


def test_picture_features_are_the_references_with_and_without_the_last_block(
    clip: tuple[Golden, image.ImageEncoder],
) -> None:
    fixture, encoder = clip
    features = encoder.encode(fixture["in.images_bvchw_minus1_1"][:, 0])
    assert_close(features, fixture["out.encode_image_features"], atol=EMBEDDING_ATOL)
    with torch.no_grad():
        last = encoder.model(pixel_values=fixture["out.pixel_values"]).last_hidden_state
    assert_close(last, fixture["out.all_blocks_features"], atol=EMBEDDING_ATOL)
    assert (last - features).abs().max() > 0.1


def test_picture_constants_and_tiny_sizes_are_the_references() -> None:
    notes, config = golden_json("encoders")["clip_vision"], image.TINY_VIT
    assert (list(image.MEAN), list(image.STD)) == (notes["mean"], notes["std"])
    sizes = notes["constructor"]
    assert (config.width, config.layers, config.heads) == (sizes["dim"], sizes["num_layers"], sizes["num_heads"])
    assert (config.patch, config.image_size, config.out_dim) == (
        sizes["patch_size"],
        sizes["image_size"],
        sizes["out_dim"],
    )
    assert (config.mlp_ratio, config.eps) == (sizes["mlp_ratio"], sizes["norm_eps"])


@pytest.mark.parametrize(
    ("size", "prefix", "needed", "count"),
    [
        ("14b", "vae.model.", lambda: video.shapes(video.WAN21), 194),
        ("5b", "vae.model.", lambda: video.shapes(video.WAN22), 196),
        ("14b", "text_encoder.", lambda: text.shapes(text.UMT5_XXL), 242),
        ("5b", "text_encoder.", lambda: text.shapes(text.UMT5_XXL), 242),
        ("14b", "image_encoder.model.", lambda: image.shapes(image.VIT_H14), 393),
        ("5b", "image_encoder.model.", lambda: image.shapes(image.VIT_H14), 393),
    ],
)
def test_real_sizes_need_exactly_the_names_and_shapes_of_a_checkpoint(
    size: str, prefix: str, needed: Callable[[], dict[str, tuple[int, ...]]], count: int
) -> None:
    listed = golden_json(f"keys_{size}")["full.checkpoint_keys"]
    under = f"action_head.{prefix}"
    wanted = {name.removeprefix(under): tuple(shape) for name, shape in listed.items() if name.startswith(under)}
    assert needed() == wanted
    assert len(wanted) == count
