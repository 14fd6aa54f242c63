"""A CLIP of a few thousand weights beside open_clip's own tokenizer, on disk."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

CONFIG = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=8, width=32, head_width=16, layers=2),
    # The tokenizer that needs no download knows this many words.
    text_cfg=dict(context_length=12, vocab_size=49408, width=16, heads=2, layers=1),
)
TEMPLATES = ['a photo of a {}.', 'a drawing of the {}.']


def save_tiny_clip(folder: Path, **changes) -> tuple[str, str, torch.nn.Module]:
    """Write a random CLIP's config and weights.

    Args:
        folder: Where.
        changes: To ``CONFIG``.

    Returns:
        Paths of the config and the weights, and open_clip's own model of them.
    """
    config = {**CONFIG, **changes}
    torch.manual_seed(1)
    clip = open_clip.CLIP(**config).eval()
    for parameter in clip.parameters():
        if parameter.dim() > 1:  # far from the initial tokens, which are all alike
            torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.constant_(clip.logit_scale, 3.0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'tiny.json').write_text(json.dumps(config))
    save_file(clip.state_dict(), folder / 'tiny.safetensors')
    return str(folder / 'tiny.json'), str(folder / 'tiny.safetensors'), clip
