"""Weights from BEiT's format, and into timm's and transformers'.

The scripts in tools/converters/ are thin around these functions. State dicts
map names to tensors; mmdtm's names carry the prefix 'backbone.', as in its
checkpoints, or none.
"""

import ast
import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from .atomic import atomic_write
from .checkpoints import under
from .timm_names import (
    BEIT,
    FAMILIES,
    describe_timm,
    family_to_timm,
    find_family,
    renamed,
    restore,
)

State = dict[str, torch.Tensor]

TABLE = 'relative_position_bias_table'
SHARED_TABLE = f'rel_pos_bias.{TABLE}'

TRANSFORMERS = {
    'cls_token': 'embeddings.cls_token',
    'mask_token': 'embeddings.mask_token',
    'patch_embed.projection': 'embeddings.patch_embeddings.projection',
    'layers.N.ln1': 'encoder.layer.N.layernorm_before',
    'layers.N.ln2': 'encoder.layer.N.layernorm_after',
    'layers.N.query': 'encoder.layer.N.attention.attention.query',
    'layers.N.key': 'encoder.layer.N.attention.attention.key',
    'layers.N.value': 'encoder.layer.N.attention.attention.value',
    'layers.N.attn.q_bias': 'encoder.layer.N.attention.attention.query.bias',
    'layers.N.attn.v_bias': 'encoder.layer.N.attention.attention.value.bias',
    f'layers.N.attn.{TABLE}': (
        f'encoder.layer.N.attention.attention.relative_position_bias.{TABLE}'
    ),
    'layers.N.attn.proj': 'encoder.layer.N.attention.output.dense',
    'layers.N.ffn.layers.0.0': 'encoder.layer.N.intermediate.dense',
    'layers.N.ffn.layers.1': 'encoder.layer.N.output.dense',
    'layers.N.gamma_1': 'encoder.layer.N.lambda_1',
    'layers.N.gamma_2': 'encoder.layer.N.lambda_2',
    'ln1': 'layernorm',
    'ln2': 'pooler.layernorm',
}
# timm's models of BEiT v2, and what they have in common.
TIMM_MODELS = {
    'beitv2_base_patch16_224': dict(embed_dim=768, depth=12, num_heads=12),
    'beitv2_large_patch16_224': dict(embed_dim=1024, depth=24, num_heads=16),
}
TIMM_USUAL = dict(
    mlp_ratio=4.0,
    patch_size=16,
    img_size=224,
    in_chans=3,
    init_values=1e-5,
    qkv_bias=True,
)
# What mmdtm's students see: ImageNet's, for pixels of 0 to 1.
IMAGE_MEAN = [0.485, 0.456, 0.406]
IMAGE_STD = [0.229, 0.224, 0.225]


def from_beit(state: State) -> tuple[State, list[str]]:
    """Convert a checkpoint in the format of BEiT's and BEiT v2's own code.

    Args:
        state: BEiT's names: 'blocks.0.norm1.weight' and so on.

    Returns:
        The same with mmdtm's names, the backbone's under 'backbone.', a
        classifier's under 'head.fc.'; and the names that are left out, such as
        the head that predicted visual tokens.

    Raises:
        ValueError: If the names are not BEiT's, or the model has absolute
            position embeddings, which mmdtm's backbone has not.
    """
    if 'pos_embed' in state:
        raise ValueError(
            'The checkpoint has absolute position embeddings (pos_embed), which '
            "mmdtm's backbone does not have. Convert models of BEiT v2 or DTM, which "
            'do without.'
        )
    converted, left_out = restore(BEIT, state)
    describe(backbone_weights(converted))
    return converted, left_out


def backbone_weights(state: State) -> State:
    """The backbone's part of a state dict of mmdtm, without a prefix.

    A shared position table is added to each layer's own, so that the layers'
    tables are all there is. (The other libraries' BEiT classes hold the two
    kinds either or.)

    Raises:
        ValueError: If no backbone of mmdtm is in it.
    """
    weights = {
        name: value
        for name, value in _backbone(state).items()
        if not name.endswith('relative_position_index')
    }
    if 'cls_token' not in weights or 'layers.0.attn.qkv.weight' not in weights:
        raise ValueError(
            'There is no DTMViT or DTMPretrainViT in the checkpoint, whose names are '
            f'such as {", ".join(list(state)[:3])}. Convert one that has cls_token and '
            'layers.0.attn.qkv.weight, plainly or under backbone.'
        )
    shared = weights.pop(SHARED_TABLE, None)
    if shared is not None:
        for i in range(_num_layers(weights)):
            own = weights.get(f'layers.{i}.attn.{TABLE}', torch.zeros_like(shared))
            weights[f'layers.{i}.attn.{TABLE}'] = own + shared
    return weights


def _backbone(state: State) -> State:
    return under(state, 'backbone.') or dict(state)


def _num_layers(weights: State) -> int:
    return 1 + max(int(n.split('.')[1]) for n in weights if n.startswith('layers.'))


def describe(weights: State) -> dict[str, int]:
    """The architecture that a backbone's weights tell.

    Args:
        weights: As :func:`backbone_weights` returns them.

    Returns:
        embed_dims, num_layers, num_heads, feedforward_channels, patch_size,
        img_size, in_channels.

    Raises:
        ValueError: If there are no position tables, or their grid is not square, so
            that heads or image size cannot be told.
    """
    table = weights.get(f'layers.0.attn.{TABLE}')
    if table is None:
        raise ValueError(
            'The backbone has no relative position bias, from which the number of '
            'heads is read. Convert one with use_rel_pos_bias=True.'
        )
    length, num_heads = table.shape
    side = (math.isqrt(length - 3) + 1) // 2
    if length != (2 * side - 1) ** 2 + 3:
        raise ValueError(
            f'The position tables have {length} entries, which is not that of a '
            'square grid. Convert a backbone for square images.'
        )
    embed_dims, in_channels, patch_size, _ = weights[
        'patch_embed.projection.weight'
    ].shape
    return dict(
        embed_dims=embed_dims,
        num_layers=_num_layers(weights),
        num_heads=num_heads,
        feedforward_channels=weights['layers.0.ffn.layers.0.0.weight'].shape[0],
        patch_size=patch_size,
        img_size=side * patch_size,
        in_channels=in_channels,
    )


def _prepare_export(state: State) -> tuple[State, dict[str, int], bool, State]:
    """Weights, architecture, whether features are pooled, and the classifier."""
    weights = backbone_weights(state)
    pooled, normed = 'ln2.weight' in weights, 'ln1.weight' in weights
    if pooled == normed:
        raise ValueError(
            'The backbone has '
            + ('both final norms (ln1, ln2)' if pooled else 'no final norm (ln1, ln2)')
            + '. Convert a pre-trained (ln1) or a fine-tuned (ln2) backbone.'
        )
    if 'layers.0.attn.qkv.bias' in weights:
        raise ValueError(
            'The backbone has a bias on the keys (qkv_bias=True), for which BEiT '
            'classes have no place. Convert one that was trained without.'
        )
    head = under(state, 'head.fc.') if pooled else {}
    return weights, describe(weights), pooled, head


def to_timm(state: State, model: str | None = None) -> tuple[State, str]:
    """Convert a backbone, and the classifier on it if there is one, for timm.

    A pre-trained ViT (with a norm of tokens) becomes a model whose tokens are normed
    and pooled by the class token (``global_pool='token'``); a fine-tuned one, a model
    that pools patch tokens, then norms ('avg').

    Args:
        state: State dict of mmdtm: of a DTMViT, of a ViT, Swin or ConvNeXt of
            mmpretrain, or of a TimmViT.
        model: timm's name of a TimmViT, which its weights do not tell.

    Returns:
        timm's state dict; and the arguments for ``timm.create_model`` that
        build the model for it, as Python text without the checkpoint's path.

    Raises:
        ValueError: If timm cannot express the model, or there is none.
    """
    weights, head = _backbone(state), under(state, 'head.fc.')
    family = find_family(weights)
    if any(name.startswith('network.') for name in weights):
        if model is None:
            raise ValueError(
                'The backbone is a network of timm, whose name the weights do not '
                "tell. Give it, as model of the config's backbone: --model NAME."
            )
        family, converted = FAMILIES['ViT'], under(weights, 'network.')
    elif 'layers.0.mlp.w12.weight' in weights:
        raise ValueError(
            "mmpretrain's ViTEVA02 turns the two numbers of a pair by different "
            'angles, and timm by one: the weights mean something else there. Train '
            "timm's EVA-02: type='MaskedTimmViT', model='eva02_small_patch14_224'."
        )
    elif family is not None:
        converted = family_to_timm(family, weights)
    else:
        family = BEIT
        weights, arch, _, head = _prepare_export(state)
        weights.pop('mask_token', None)
        converted = renamed(BEIT.names, weights)
    if 'norm.weight' in converted and 'fc_norm.weight' in converted:
        raise ValueError(
            'The backbone has both final norms (ln1, ln2), and timm one. Convert one '
            'that was fine-tuned with final_norm=False, as in configs/backbones/.'
        )
    name, arguments = (
        _describe_beit(weights, arch)
        if family is BEIT
        else describe_timm(converted, model)
    )
    arguments['num_classes'] = len(head['weight']) if head else 0
    if 'blocks.0.norm1.weight' in converted:
        pooled = 'fc_norm.weight' in converted or 'cls_token' not in converted
        arguments['global_pool'] = 'avg' if pooled else 'token'
    text = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
    head = {f'{family.classifier}.{key}': value for key, value in head.items()}
    return converted | head, f'{name!r}, {text}'


def _describe_beit(weights: State, arch: dict[str, int]) -> tuple[str, dict]:
    """The model of timm that is nearest, and in what its ``Beit`` must differ."""
    arguments = dict(
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['feedforward_channels'] / arch['embed_dims'],
        patch_size=arch['patch_size'],
        img_size=arch['img_size'],
        in_chans=arch['in_channels'],
        # create_model drops None, but 0 is no layer scale as well.
        init_values=1e-5 if 'layers.0.gamma_1' in weights else 0,
        qkv_bias='layers.0.attn.q_bias' in weights,
    )
    same = [n for n, s in TIMM_MODELS.items() if s.items() <= arguments.items()]
    name = same[0] if same else 'beitv2_base_patch16_224'
    usual = TIMM_USUAL | TIMM_MODELS[name]
    return name, {key: v for key, v in arguments.items() if v != usual[key]}


def to_transformers(state: State) -> tuple[State, dict]:
    """Convert a backbone, and the classifier on it if there is one.

    The names are those of the files on the hub, which all versions of
    transformers read. ``BeitModel`` gives a pre-trained backbone's normed
    tokens as ``last_hidden_state``, and a fine-tuned one's pooled and normed
    features as ``pooler_output``.

    Args:
        state: State dict of mmdtm.

    Returns:
        The state dict of ``BeitModel``, or of ``BeitForImageClassification``
        where there is a classifier; and its config.

    Raises:
        ValueError: If transformers' BEiT cannot express the model, or there is none.
    """
    weights, arch, pooled, head = _prepare_export(state)
    for i in range(arch['num_layers']):
        parts = weights.pop(f'layers.{i}.attn.qkv.weight').chunk(3)
        for name, part in zip(('query', 'key', 'value'), parts, strict=True):
            weights[f'layers.{i}.{name}.weight'] = part
    if 'layers.0.attn.q_bias' not in weights:
        # BeitModel's queries and values always have a bias.
        for i in range(arch['num_layers']):
            for name in ('q_bias', 'v_bias'):
                weights[f'layers.{i}.attn.{name}'] = torch.zeros(arch['embed_dims'])
    converted = renamed(TRANSFORMERS, weights)
    if head:
        converted = {f'beit.{name}': value for name, value in converted.items()}
        converted.update({f'classifier.{name}': v for name, v in head.items()})
    config = dict(
        model_type='beit',
        architectures=['BeitForImageClassification' if head else 'BeitModel'],
        hidden_size=arch['embed_dims'],
        num_hidden_layers=arch['num_layers'],
        num_attention_heads=arch['num_heads'],
        intermediate_size=arch['feedforward_channels'],
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        drop_path_rate=0.0,
        layer_norm_eps=1e-6,
        image_size=arch['img_size'],
        patch_size=arch['patch_size'],
        num_channels=arch['in_channels'],
        layer_scale_init_value=0.1 if 'layers.0.gamma_1' in weights else 0.0,
        use_mask_token='mask_token' in weights,
        use_absolute_position_embeddings=False,
        use_relative_position_bias=True,
        use_shared_relative_position_bias=False,
        use_mean_pooling=pooled,
    )
    if head:
        labels = [f'LABEL_{i}' for i in range(len(head['weight']))]
        config['id2label'] = dict(enumerate(labels))
        config['label2id'] = {label: i for i, label in enumerate(labels)}
    return converted, config


def write_checkpoint(state: State, target: str | Path) -> None:
    """Write mmdtm's own format.

    Raises:
        FileExistsError: If ``target`` exists.
    """
    with atomic_write(target, exist_ok=False) as path:
        torch.save({'state_dict': state}, path)


def write_safetensors(state: State, target: str | Path) -> None:
    """Write a .safetensors file.

    Raises:
        FileExistsError: If ``target`` exists.
        ValueError: If its name does not end in .safetensors, by which readers
            tell the format.
    """
    if Path(target).suffix != '.safetensors':
        raise ValueError(
            f'{target} does not end in .safetensors, by which readers tell the format. '
            'Name a file that does.'
        )
    with atomic_write(target, exist_ok=False) as path:
        _save_file(state, path)


def write_timm(
    state: State, arguments: str, target: str | Path, card: str | None = None
) -> None:
    """Write a folder for ``timm.create_model('local-dir:FOLDER')``, and timm's hub.

    Args:
        state: Of :func:`to_timm`.
        arguments: Likewise.
        target: The folder.
        card: Its README.md, such as :func:`~mmdtm.io.model_card.model_card`'s.

    Raises:
        FileExistsError: If ``target`` exists.
    """
    call = ast.parse(f'create_model({arguments})', mode='eval').body
    assert isinstance(call, ast.Call)
    given = {key.arg: ast.literal_eval(key.value) for key in call.keywords}
    side = given.get('img_size', TIMM_USUAL['img_size'])
    norms = ('norm.weight', 'fc_norm.weight', 'head.norm.weight')
    family = next((f for f in FAMILIES.values() if f.theirs in state), FAMILIES['ViT'])
    config = dict(
        architecture=ast.literal_eval(call.args[0]),
        num_classes=given.pop('num_classes'),
        num_features=next(len(state[name]) for name in norms if name in state),
        global_pool=given.get('global_pool', 'avg'),
        model_args=given,
        pretrained_cfg=dict(
            input_size=[given.get('in_chans', 3), side, side],
            interpolation='bicubic',
            crop_pct=0.875,  # 224 of 256
            mean=IMAGE_MEAN,
            std=IMAGE_STD,
            first_conv=family.first_conv,
            classifier=family.classifier,
        ),
    )
    _write_folder(target, state, {'config.json': config}, card)


def write_transformers(
    state: State, config: dict, target: str | Path, card: str | None = None
) -> None:
    """Write a folder that ``from_pretrained`` reads.

    Weights, config, and a preprocessor's config with the mean and standard
    deviation that mmdtm's models see, which are not transformers' defaults.

    Args:
        state: Of :func:`to_transformers`.
        config: Likewise.
        target: The folder.
        card: Its README.md, such as :func:`~mmdtm.io.model_card.model_card`'s.

    Raises:
        FileExistsError: If ``target`` exists.
    """
    side = dict(height=config['image_size'], width=config['image_size'])
    preprocessor = dict(
        image_processor_type='BeitImageProcessor',
        do_resize=True,
        size=side,
        resample=3,  # bicubic
        do_center_crop=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
    configs = {'config.json': config, 'preprocessor_config.json': preprocessor}
    _write_folder(target, state, configs, card)


def _write_folder(
    target: str | Path, state: State, configs: dict[str, dict], card: str | None
) -> None:
    with atomic_write(target, exist_ok=False) as folder:
        folder.mkdir()
        _save_file(state, folder / 'model.safetensors')
        for name, content in configs.items():
            (folder / name).write_text(json.dumps(content, indent=2) + '\n')
        if card is not None:
            (folder / 'README.md').write_text(card, encoding='utf-8')


def _save_file(state: State, path: Path) -> None:
    # Views of one storage cannot be saved as they are.
    state = {name: value.contiguous().clone() for name, value in state.items()}
    save_file(state, path, metadata={'format': 'pt'})
