"""CLIP's patch tokens as targets, for any image tower of open_clip with patches."""

from __future__ import annotations

import difflib
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmdtm.io.checkpoints import shorten, under
from mmdtm.io.weights import check_weights, read_weights
from mmdtm.models.downloads import find_file, require_network
from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.frozen import Tower
from mmdtm.models.target_generators.timm_generator import (
    measure,
    patch_tokens,
    pool_alone,
    resize_network,
)


@MODELS.register_module()
class OpenCLIPGenerator(TargetGenerator):
    """All patch tokens of a CLIP image tower, through its visual projection.

    The paper's teacher (section 4): CLIP ViT-B/16. Every patch token, not
    only the class token, passes the final norm and the visual projection that
    CLIP trained for the class token: D = 512 for ViT-B/16. Only the image
    tower is built.

    Any other tower likewise gives each patch the feature that it gives an image: a
    patch alone goes where class token, mean or attention pooling would put the whole
    image (CoCa, SigLIP, EVA-02-CLIP, MobileCLIP, ConvNeXt, ...), so that D is always
    CLIP's ``embed_dim``. docs/teachers.md has a table of kinds.

    The default is OpenAI's ViT-B/16, which was trained with QuickGELU in
    place of GELU; with the other one the targets are quietly wrong. A
    ``pretrained`` tag says which of them its weights need, and that is used
    whatever ``model`` says. A local file says so only if
    ``tools/converters/openai_clip_to_open_clip.py`` wrote it; otherwise
    ``model`` decides, hence the default ``ViT-B-16-quickgelu``, and a warning
    tells when a file looks like OpenAI's and ``model`` has no QuickGELU.

    Args:
        model: Name of an open_clip architecture, or any name when ``model_config``
            describes it.
        pretrained: A tag that open_clip knows for ``model`` (downloaded, or taken from
            the download cache), or the path of a local file: ``.safetensors`` or
            ``torch.save``, in open_clip's key names.
        model_config: An architecture that open_clip does not know, in open_clip's
            format (``embed_dim``, ``vision_cfg``, ``quick_gelu``): a dict, a JSON file,
            or a folder that holds ``<model>.json``. With ``model_cfg`` and
            ``preprocess_cfg`` inside, as in ``open_clip_config.json``, mean and std
            come from there.
        force_quick_gelu: Whether to use QuickGELU, against all said above.
        **kwargs: ``mean``, ``std``, ``dtype`` and ``random_weights``; see
            :class:`FrozenTower`.

    Raises:
        FileNotFoundError: If ``pretrained`` is neither a tag nor a file, the
            tag's weights cannot be downloaded, or ``model_config`` is missing.
        ValueError: If the model is unknown or has no patch grid, or the
            file is not this CLIP or not plain weights.
    """

    smoke: ClassVar[dict] = dict(
        model='smoke',
        model_config=dict(
            embed_dim=24,
            vision_cfg=dict(
                image_size=64, layers=4, width=32, head_width=16, patch_size=16
            ),
        ),
        pretrained=None,
        random_weights=True,
    )

    def __init__(
        self,
        model: str = 'ViT-B-16-quickgelu',
        pretrained: str | None = 'openai',
        model_config: str | dict | None = None,
        force_quick_gelu: bool | None = None,
        **kwargs,
    ) -> None:
        build = partial(
            build_tower, model.replace('/', '-'), model_config, force_quick_gelu
        )
        super().__init__(build, pretrained, **kwargs)

    @classmethod
    def require_weights(cls, options: Mapping) -> None:
        defaults = dict(model='ViT-B-16-quickgelu', pretrained='openai')
        options = defaults | {k: v for k, v in options.items() if k != 'type'}
        if options.get('random_weights') or options['pretrained'] is None:
            return
        import open_clip

        model, pretrained = options['model'].replace('/', '-'), options['pretrained']
        find_architecture(model, options.get('model_config'))
        tag = open_clip.get_pretrained_cfg(model, pretrained)
        if not tag:
            find_weights(model, pretrained, tag)
        elif find_cached(tag) is None:
            try:
                require_network(tag)
            except OSError as error:
                raise FileNotFoundError(
                    _no_download(model, pretrained, tag, error)
                ) from error

    def extract_tokens(self, images: Tensor) -> Tensor:
        tower = self.teacher
        if hasattr(tower, 'trunk'):  # timm's
            return tower.head(patch_tokens(tower.trunk, images))
        pooler = tower.attn_pool
        output = tower.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=pooler is None,
            intermediates_only=True,
            output_fmt='NLC',
        )
        tokens = output['image_intermediates'][0]
        if pooler is not None:
            alone = tokens.flatten(0, 1).unsqueeze(1)
            pooled = pool_alone(lambda part: tower._pool(part)[0].flatten(1), alone)
            tokens = pooled.unflatten(0, tokens.shape[:2])
        return tokens @ tower.proj

    def resize_teacher(self, input_size: tuple[int, int]) -> None:
        from open_clip.model import resize_pos_embed

        tower = self.teacher
        if hasattr(tower, 'trunk'):
            resize_network(tower.trunk, input_size)
            return
        if self.grid_size[0] != self.grid_size[1]:
            raise ValueError('open_clip resizes square position embeddings alone')
        grid_size = tuple(
            n // p for n, p in zip(input_size, self.patch_size, strict=True)
        )
        state = {'visual.positional_embedding': tower.positional_embedding.data}
        resize_pos_embed(
            state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid_size))
        )
        tower.positional_embedding = nn.Parameter(
            state['visual.positional_embedding'], requires_grad=False
        )
        tower.image_size, tower.grid_size = input_size, grid_size


def build_tower(
    model: str,
    model_config: str | dict | None,
    force_quick_gelu: bool | None,
    pretrained: str | None,
) -> Tower:
    """Build the image tower of a CLIP; see :class:`OpenCLIPGenerator`."""
    import open_clip
    from open_clip.model import _build_vision_tower
    from open_clip.modified_resnet import ModifiedResNet

    config, normalisation = find_architecture(model, model_config)
    quick_gelu, weights, path = config.get('quick_gelu', False), None, ''
    if pretrained is not None:
        tag = open_clip.get_pretrained_cfg(model, pretrained)
        path = find_weights(model, pretrained, tag)
        weights, metadata = read_weights(path)
        normalisation |= {key: tag[key] for key in normalisation if key in tag}
        if tag:
            quick_gelu = tag.get('quick_gelu', False)
        elif 'quick_gelu' in metadata:
            quick_gelu = metadata['quick_gelu'] == 'true'
        elif force_quick_gelu is None and not quick_gelu:
            _warn_if_openai(model, path, weights)
    if force_quick_gelu is not None:
        quick_gelu = force_quick_gelu

    network: Any = _build_vision_tower(
        config['embed_dim'],
        {**config['vision_cfg'], 'timm_model_pretrained': False},
        quick_gelu,
    )
    if isinstance(network, ModifiedResNet):
        raise ValueError(
            f"{model}'s image tower is a ResNet of OpenAI's, which has no patch grid: "
            'its attention pooling takes all positions at once. Choose a ViT.'
        )
    if weights is not None:
        _load(network, weights, path, model)
    if hasattr(network, 'trunk'):
        patch_size, _ = measure(network.trunk, network.image_size)
    else:
        patch_size = network.patch_size
        if network.attn_pool is not None:  # of one patch, all queries find the same
            network.attn_pool.query = nn.Parameter(network.attn_pool.query[:1])
            network.pool_type = 'tok'
        if quick_gelu:
            for block in network.transformer.resblocks:
                block.mlp = QuickGELUFeedForward(**dict(block.mlp.named_children()))
    return Tower(
        network,
        patch_size=patch_size,
        input_size=network.image_size,
        mean=[255 * value for value in normalisation['mean']],
        std=[255 * value for value in normalisation['std']],
        out_channels=config['embed_dim'],
    )


def plain_tower(tower: Any) -> Any:
    """Check that an image tower has one norm and one projection for all its tokens.

    Args:
        tower: Of :class:`OpenCLIPGenerator`.

    Returns:
        The same.

    Raises:
        ValueError: If it is one of timm's, or pools by attention.
    """
    from open_clip.transformer import VisionTransformer

    if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None:
        raise ValueError(
            f"This CLIP's image tower is a {type(tower).__name__} of timm's, or pools "
            "by attention. Choose one of open_clip's own that pools by class token or "
            'mean, such as ViT-B-16-quickgelu.'
        )
    return tower


FACTOR = 1.702  # QuickGELU's


class QuickGELUFeedForward(nn.Sequential):
    """open_clip's feed-forward part with QuickGELU, x * sigmoid(1.702 x).

    That is silu(1.702 x) / 1.702, and the products on both sides have the factors for
    free: 2 passes over the widest tensor of a layer instead of 7.

    Attributes:
        bias: The first product's, scaled.
    """

    c_fc: nn.Linear
    c_proj: nn.Linear
    bias: Tensor

    def __init__(self, c_fc: nn.Linear, gelu: nn.Module, c_proj: nn.Linear) -> None:
        super().__init__(OrderedDict(c_fc=c_fc, gelu=gelu, c_proj=c_proj))
        self.register_buffer('bias', None, persistent=False)
        self.register_load_state_dict_post_hook(_scale_bias)
        _scale_bias(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        narrow, rows = self.c_proj, x.flatten(0, -2)
        wide = torch.addmm(self.bias, rows, self.c_fc.weight.t(), alpha=FACTOR)
        wide = F.silu(wide, inplace=not wide.requires_grad)
        rows = torch.addmm(narrow.bias, wide, narrow.weight.t(), alpha=1 / FACTOR)
        return rows.view(x.shape)


def _scale_bias(layer: QuickGELUFeedForward, *_: object) -> None:
    layer.bias = FACTOR * layer.c_fc.bias.detach()


def _load(
    network: nn.Module, weights: Mapping[str, Tensor], path: str, model: str
) -> None:
    visual = under(weights, 'visual.')
    if not visual:
        raise ValueError(
            f"{path} is not a CLIP in open_clip's key names: no key begins with "
            f"'visual.', such as visual.conv1.weight and visual.proj. It holds "
            f'{shorten(weights)}.'
        )
    check_weights(path, network.state_dict(), visual, f'the CLIP {model}')
    network.load_state_dict(visual)


def find_architecture(model: str, model_config: str | dict | None) -> tuple[dict, dict]:
    """Find how open_clip builds a model and normalises its images.

    Args:
        model: See :class:`OpenCLIPGenerator`.
        model_config: See :class:`OpenCLIPGenerator`.

    Returns:
        The architecture (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...), and
        ``mean`` and ``std`` for pixels 0-1.

    Raises:
        FileNotFoundError: If ``model_config`` is missing.
        ValueError: If the model is unknown.
    """
    import open_clip

    preprocess = {
        'mean': open_clip.OPENAI_DATASET_MEAN,
        'std': open_clip.OPENAI_DATASET_STD,
    }
    if model_config is None:
        config = open_clip.get_model_config(model)
        if config is None:
            known = open_clip.list_models()
            near = difflib.get_close_matches(model, known, n=4, cutoff=0.4)
            raise ValueError(
                f'open_clip has no model {model!r}. Choose one of '
                'open_clip.list_models(), or describe it in model_config'
                + (f'; near it: {", ".join(near)}.' if near else '.')
            )
        # A file says nothing of its normalisation, but the model's tags may.
        tags = [
            open_clip.get_pretrained_cfg(model, name)
            for name in open_clip.list_pretrained_tags_by_model(model)
        ]
        if len({(tuple(tag['mean']), tuple(tag['std'])) for tag in tags}) == 1:
            preprocess = {key: tags[0][key] for key in preprocess}
    else:
        config = dict(_read_config(model, model_config))
        if 'model_cfg' in config:
            preprocess.update(config.get('preprocess_cfg', {}))
            config = config['model_cfg']
        missing = [key for key in ('embed_dim', 'vision_cfg') if key not in config]
        if missing:
            raise ValueError(
                f'The model_config of {model} lacks {" and ".join(missing)}. '
                "Add it as open_clip's own model_configs/*.json have it."
            )
    return config, preprocess


def _read_config(model: str, model_config: str | Mapping) -> Mapping:
    if isinstance(model_config, Mapping):
        return model_config
    path = Path(model_config)
    if path.is_dir():
        path = path / f'{model}.json'
    if not path.is_file():
        raise FileNotFoundError(
            f'The model_config of {model} is not at {path.absolute()}. Give a JSON '
            f'file, or a folder that holds {model}.json.'
        )
    return json.loads(path.read_text())


def find_weights(model: str, pretrained: str, tag: dict) -> str:
    """Find the file of weights, downloading a tag's.

    Args:
        model: open_clip's name.
        pretrained: A tag or a path.
        tag: What open_clip knows of the tag; empty for a path.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is none, or it cannot be downloaded.
    """
    import open_clip

    if not tag:
        if Path(pretrained).is_file():
            return pretrained
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise FileNotFoundError(
            f"The teacher's weights {pretrained!r} are neither a file (looked at "
            f'{Path(pretrained).absolute()}) nor a tag of {model} (tags: '
            f'{", ".join(tags) or "none"}). Give an existing path or one of the tags.'
        )
    cached = find_cached(tag)
    if cached is not None:
        return cached
    try:
        require_network(tag)
        return open_clip.download_pretrained(tag)
    except Exception as error:  # every network library raises its own
        raise FileNotFoundError(_no_download(model, pretrained, tag, error)) from error


def _no_download(model: str, pretrained: str, tag: Mapping, error: Exception) -> str:
    return (
        f"The weights of {model}, tag '{pretrained}', cannot be downloaded "
        f'({error}). On a machine with network, fetch them from '
        f'{tag.get("hf_hub") or tag.get("url")} and give the path of the file: '
        "pretrained='/path/to/open_clip_model.safetensors'."
    )


def find_cached(tag: Mapping) -> str | None:
    """The file of a tag's weights in the hub's cache; the network is not asked."""
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, name = (tag.get('hf_hub') or '').rpartition('/')
    names = [name] if name else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return find_file(repository, *names)


def _warn_if_openai(model: str, path: str, weights: Mapping[str, Tensor]) -> None:
    """Warn if the file looks like OpenAI's, while the model has no QuickGELU."""
    patches = weights.get('visual.conv1.weight')
    # OpenAI published half-precision weights and saves three integers with them.
    if (
        'openai' in Path(path).name.lower()
        or 'input_resolution' in weights
        or (
            patches is not None and torch.equal(patches.half().float(), patches.float())
        )
    ):
        warnings.warn(
            f'{path} looks like weights of OpenAI, which need QuickGELU, but {model} '
            f'has GELU: the targets would be quietly wrong. Use {model}-quickgelu or '
            'force_quick_gelu=True; if GELU is right, force_quick_gelu=False.',
            stacklevel=3,
        )
