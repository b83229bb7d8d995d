"""Real architectures, shrunk: each gives a module with one float output, its inputs by name, and which of them are batches."""
import torch
from torch import nn


class Wrapped(nn.Module):
    """A model of a library with positional inputs and one tensor as its output; names of its weights stay as they are."""

    def __init__(self, model, names, pick):
        super().__init__()
        self.model, self.names, self.pick = model, names, pick

    def forward(self, *inputs):
        return self.pick(self.model(**dict(zip(self.names, inputs))))


def ids(count, length, vocabulary):
    generator = torch.Generator().manual_seed(7)
    # From 3: the first ids are for padding, whose rows PyTorch does not train; the older exporter does not say so.
    return torch.randint(3, vocabulary, (count, length), generator=generator)


def floats(*shape):
    generator = torch.Generator().manual_seed(8)
    return torch.randn(*shape, generator=generator)


def image(size=32, channels=3):
    return lambda n: {"pixel_values": floats(n, channels, size, size)}


def text(length=8, vocabulary=64):
    return lambda n: {"input_ids": ids(n, length, vocabulary)}


def masked_text(length=8, vocabulary=64):
    def make(n):
        mask = torch.ones(n, length, dtype=torch.int64)
        mask[0, -2:] = 0
        return {"input_ids": ids(n, length, vocabulary), "attention_mask": mask}

    return make


def encoder_decoder(length=8, vocabulary=64):
    return lambda n: {"input_ids": ids(n, length, vocabulary), "decoder_input_ids": ids(n, 6, vocabulary)}


def hf(kind, config, settings, inputs, pick=lambda out: out.logits):
    def make():
        import transformers

        made = getattr(transformers, config)(**settings)
        made._attn_implementation = "eager"
        model = getattr(transformers, kind)(made)
        return Wrapped(model, list(inputs(1)), pick)

    return make, inputs


def tv(build, size=32):
    def make():
        import torchvision

        return build(torchvision.models)

    return make, lambda n: {"x": floats(n, 3, size, size)}


def timm_model(name, size=32, **settings):
    def make():
        import timm

        return timm.create_model(name, num_classes=10, **settings)

    return make, lambda n: {"x": floats(n, 3, size, size)}


def own(build, inputs):
    return build, inputs


def mixer():
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=32, patch_size=8, embed_dim=32, num_blocks=2)


def unet():
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )
    return Wrapped(model, ["sample", "timestep"], lambda out: out.sample)


def vae():
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, sample_size=8, latent_channels=2,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return Wrapped(model, ["sample"], lambda out: out.sample)


def dit():
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10, dropout=0.0,
    )
    return Wrapped(model, ["hidden_states", "timestep", "class_labels"], lambda out: out.sample)


class Mixed(nn.Module):
    """What single weights can be: a slope, a scale, a shared layer, buffers, a parameter for each place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.act = nn.PReLU()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.shared = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)))
        self.register_buffer("table", torch.sin(torch.arange(8.0)))
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        x = self.norm1(self.act(self.first(x))) + self.table
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.shared(self.norm2(self.shared(self.mask @ x)))
        return self.head(x * self.scale.exp())


SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=64)
DROP = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8)

ZOO = {
    "mixed": own(Mixed, lambda n: {"x": floats(n, 4, 6)}),
    "bert": hf("BertForMaskedLM", "BertConfig", {**SMALL, **DROP, "max_position_embeddings": 16}, masked_text()),
    "distilbert": hf("DistilBertForSequenceClassification", "DistilBertConfig", dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=64, max_position_embeddings=16, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=3), text()),
    "roberta": hf("RobertaForSequenceClassification", "RobertaConfig", {**SMALL, **DROP, "max_position_embeddings": 18, "num_labels": 1}, masked_text()),
    "gpt2": hf("GPT2LMHeadModel", "GPT2Config", dict(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False), text()),
    "llama": hf("LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 16, "use_cache": False}, text()),
    "gemma2": hf("Gemma2ForCausalLM", "Gemma2Config", {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 16, "use_cache": False}, text()),
    "t5": hf("T5ForConditionalGeneration", "T5Config", dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=64, dropout_rate=0.0, use_cache=False), encoder_decoder()),
    "bart": hf("BartForConditionalGeneration", "BartConfig", dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=64, max_position_embeddings=16, dropout=0.0, use_cache=False), encoder_decoder()),
    "whisper": hf("WhisperForConditionalGeneration", "WhisperConfig", dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=64, num_mel_bins=8, max_source_positions=16, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=[], begin_suppress_tokens=[], dropout=0.0, use_cache=False), lambda n: {"input_features": floats(n, 8, 32), "decoder_input_ids": ids(n, 6, 64)}),
    "clip": hf("CLIPModel", "CLIPConfig", dict(text_config=dict(**SMALL, max_position_embeddings=16, eos_token_id=63), vision_config=dict(**VISION), projection_dim=16), lambda n: {"input_ids": ids(n, 8, 64), "pixel_values": floats(n, 3, 32, 32)}, lambda out: out.logits_per_image.diagonal().unsqueeze(-1)),
    "vit-hf": hf("ViTForImageClassification", "ViTConfig", {**VISION, **DROP, "num_labels": 10}, image()),
    "bloom": hf("BloomForCausalLM", "BloomConfig", dict(hidden_size=32, n_layer=2, n_head=4, vocab_size=64, hidden_dropout=0.0, attention_dropout=0.0, use_cache=False), text()),
    "opt": hf("OPTForCausalLM", "OPTConfig", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, vocab_size=64, word_embed_proj_dim=32, max_position_embeddings=16, dropout=0.0, use_cache=False), text()),
    "segformer": hf("SegformerForSemanticSegmentation", "SegformerConfig", dict(hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, num_attention_heads=[1, 2], sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0, drop_path_rate=0.0, num_labels=4), image()),
    "resnet": tv(lambda m: m.resnet.ResNet(m.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)),
    "mobilenet": tv(lambda m: m.mobilenet_v2(width_mult=0.2, num_classes=10, dropout=0.0)),
    "densenet": tv(lambda m: m.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=10)),
    "convnext": tv(lambda m: m.convnext.ConvNeXt([m.convnext.CNBlockConfig(8, 16, 1), m.convnext.CNBlockConfig(16, None, 1)], num_classes=10)),
    "swin": tv(lambda m: m.swin_transformer.SwinTransformer([4, 4], 16, [1, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=10)),
    "vit": tv(lambda m: m.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10)),
    "timm-vit": timm_model("test_vit", img_size=32),
    "timm-resnet": timm_model("test_resnet"),
    # Of 32 places a side, normalization in training mode would have one for each sample at the end.
    "timm-efficientnet": timm_model("test_efficientnet", size=64),
    "timm-convnext": timm_model("test_convnext"),
    "timm-mlp-mixer": own(mixer, lambda n: {"x": floats(n, 3, 32, 32)}),
    "unet": own(unet, lambda n: {"sample": floats(n, 3, 8, 8), "timestep": torch.arange(1, n + 1) * 7}),
    "vae": own(vae, lambda n: {"sample": floats(n, 3, 16, 16)}),
    "dit": own(dit, lambda n: {"hidden_states": floats(n, 3, 8, 8), "timestep": torch.arange(1, n + 1) * 7, "class_labels": torch.arange(n) % 10}),
}
