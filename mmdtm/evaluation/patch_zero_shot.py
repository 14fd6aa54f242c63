"""CLIP's zero-shot classes patch by patch, without and with token morphing.

This is the measurement of the paper's pilot study (Figure 2, Table 1): a patch token
is classified as CLIP classifies the class token, by its most similar class
text. With morphing, a group of tokens is classified by its mean, and the result
holds for all patches of the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import Tensor, nn

from mmdtm.io.weights import check_weights, read_weights
from mmdtm.models.target_generators.base import TargetGenerator
from mmdtm.models.target_generators.frozen import same_weights
from mmdtm.models.target_generators.openclip_generator import (
    OpenCLIPGenerator,
    find_architecture,
    find_weights,
    plain_tower,
)
from mmdtm.morphing import (
    TokenAssignment,
    bipartite_matching,
    effective_schedule,
    merge_schedule,
)
from mmdtm.morphing.checks import check_option

SCORES = ('logits', 'probabilities')


def view_transform(generator: TargetGenerator) -> Callable[[Image.Image], Tensor]:
    """Resize, centre crop and normalise as a teacher wants its images.

    Args:
        generator: The teacher.

    Returns:
        From a PIL image to a tensor (3, H, W) of the teacher's input size.
    """
    return open_clip.image_transform(
        generator.input_size,
        is_train=False,
        mean=[value / 255 for value in generator.mean],
        std=[value / 255 for value in generator.std],
    )


def morph_tokens(tokens: Tensor, num_morphed: int, num_iters: int) -> TokenAssignment:
    """Group tokens by iterated bipartite matching with a fixed schedule (Eq. 1).

    Args:
        tokens: (B, N, D).
        num_morphed: N_m, tokens that remain; N is the identity.
        num_iters: k, iterations.

    Returns:
        The grouping, N -> N_m.

    Raises:
        ValueError: If N_m is not reached: one iteration can merge half of the
            tokens at most, so that k must be large enough.
    """
    schedule = merge_schedule(tokens.shape[1], num_morphed, num_iters)
    reached = tokens.shape[1] - sum(effective_schedule(tokens.shape[1], schedule))
    if reached != num_morphed:
        raise ValueError(
            f'{tokens.shape[1]} tokens cannot be morphed into {num_morphed} in '
            f'{num_iters} iteration(s), only into {reached}, since each merges at most '
            'half of them. Choose another number of iterations.'
        )
    return bipartite_matching(tokens, schedule)


def patch_features(tokens: Tensor, assignment: TokenAssignment | None = None) -> Tensor:
    """Unit-length features of all patches.

    Args:
        tokens: Projected tokens v, (B, N, D).
        assignment: With it, every patch has its group's mean token instead.

    Returns:
        (B, N, D), of length 1 each.
    """
    if assignment is not None:
        tokens = assignment.unmorph(assignment.morph(tokens))
    return F.normalize(tokens, dim=-1)


def patch_logits(features: Tensor, classifier: Tensor, scale: float = 1.0) -> Tensor:
    """Scaled cosine similarities of patches and class texts.

    Args:
        features: Unit-length features, (B, N, D) or (B, D).
        classifier: Unit-length class embeddings, (C, D).
        scale: CLIP's learned inverse temperature.

    Returns:
        (B, N, C) or (B, C).
    """
    return scale * features @ classifier.T


def ensemble(logits: Tensor, scores: str = 'logits') -> Tensor:
    """Image-level class scores as the mean of the patches' (Table 1).

    Args:
        logits: Of patches (B, N, C), where a morphed token counts as often as it has
            patches; or of morphed tokens (B, N_m, C), where each counts once.
        scores: What is averaged, of ``SCORES``: the logits as they are, as we read
            section 3's "class scores", or their softmax.

    Returns:
        (B, C).

    Raises:
        ValueError: If ``scores`` is neither.
    """
    check_option(scores, SCORES, 'scores')
    if scores == 'probabilities':
        logits = logits.softmax(dim=-1)
    return logits.mean(dim=1)


def class_distances(classifier: Tensor) -> Tensor:
    """How wrong it is to say one class where another is true, from 0 to 1.

    One minus the cosine similarity of the two classes' text embeddings, divided by
    that of the class farthest from the true one.

    Args:
        classifier: Unit-length class embeddings, (C, D).

    Returns:
        (C, C): the row is the true class, the column the predicted one. Zero
        on the diagonal; one at the farthest class of each row.
    """
    distances = (1 - classifier @ classifier.T).clamp(min=0)
    distances.fill_diagonal_(0)
    farthest = distances.amax(dim=1, keepdim=True)
    return distances / farthest.clamp(min=torch.finfo(distances.dtype).tiny)


@dataclass
class PatchPredictions:
    """What each patch says, (B, N) tensors, and what they say together.

    Attributes:
        predicted: int64 (B, N), most similar class.
        right: bool (B, N), whether it is the true one.
        distance: (B, N) in [0, 1], from the true class (``class_distances``).
        image: int64 (B,), the class of the averaged scores (``ensemble``).
    """

    predicted: Tensor
    right: Tensor
    distance: Tensor
    image: Tensor


def judge(logits: Tensor, targets: Tensor, distances: Tensor) -> PatchPredictions:
    """Compare patch predictions with the image's class.

    Args:
        logits: (B, N, C).
        targets: int64 (B,), true classes.
        distances: (C, C), from ``class_distances``.

    Returns:
        The predictions and how far they are from the truth.
    """
    predicted = logits.argmax(dim=-1)
    true = targets[:, None]
    return PatchPredictions(
        predicted=predicted,
        right=predicted == true,
        distance=distances[true, predicted],
        image=ensemble(logits).argmax(dim=-1),
    )


class ZeroShotCLIP(nn.Module):
    """A CLIP of open_clip whose patch tokens can be classified.

    The image tower is ``OpenCLIPGenerator``'s, the text tower is read from the same
    weights; both are frozen.

    Args:
        model: open_clip's name of the architecture.
        pretrained: A tag that open_clip knows, or a local file.
        model_config: See ``OpenCLIPGenerator``.
        random_weights: See ``OpenCLIPGenerator``.

    Attributes:
        image_size: (H, W) of the images, in pixels.
        grid_size: (h, w) of the patches.
        transform: From a PIL image to a normalised (3, H, W) tensor.
        scale: CLIP's learned inverse temperature.

    Raises:
        FileNotFoundError: See ``OpenCLIPGenerator``.
        ValueError: See ``OpenCLIPGenerator``; also if the file lacks the text tower.
    """

    def __init__(
        self,
        model: str = 'ViT-B-16-quickgelu',
        pretrained: str | None = 'openai',
        model_config: str | dict | None = None,
        random_weights: bool = False,
    ) -> None:
        super().__init__()
        generator = OpenCLIPGenerator(
            model, pretrained, model_config, random_weights=random_weights
        )
        model = model.replace('/', '-')
        config = dict(find_architecture(model, model_config)[0])
        tower = plain_tower(generator.teacher)
        gelu = tower.transformer.resblocks[0].mlp.gelu
        config['quick_gelu'] = isinstance(gelu, QuickGELU)
        text = config['text_cfg']
        custom = config.pop('custom_text', False) or 'hf_model_name' in text
        build = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        with same_weights():
            clip = build(**config)
        if pretrained is not None and not random_weights:
            tag = open_clip.get_pretrained_cfg(model, pretrained)
            path = find_weights(model, pretrained, tag)
            weights, _ = read_weights(path)
            weights = {
                name: weights[name]
                for name in weights
                if name not in ('input_resolution', 'context_length', 'vocab_size')
            }
            check_weights(path, clip.state_dict(), weights, f'the CLIP {model}')
            clip.load_state_dict(weights)
        clip.visual = tower
        self.clip = clip.requires_grad_(False).eval()
        if model_config is None:
            self.tokenizer = open_clip.get_tokenizer(model)
        else:
            self.tokenizer = open_clip.SimpleTokenizer(
                context_length=text.get('context_length', 77),
                **text.get('tokenizer_kwargs', {}),
            )
        self.mean, self.std = generator.mean, generator.std
        self.image_size, self.grid_size = generator.input_size, generator.grid_size
        self.transform = view_transform(generator)
        self.scale = clip.logit_scale.exp().item()

    @torch.no_grad()
    def classifier(
        self,
        names: Sequence[str],
        templates: Sequence[str | Callable[[str], str]],
        progress: bool = False,
    ) -> Tensor:
        """Class embeddings: the mean over the templates' texts, of length 1.

        Args:
            names: C class names.
            templates: ``'a photo of a {}.'`` strings, or functions of the name.
            progress: Whether to show a progress bar.

        Returns:
            (C, D).
        """
        device = next(self.clip.parameters()).device
        return open_clip.build_zero_shot_classifier(
            self.clip,
            self.tokenizer,
            names,
            templates,
            device=device,
            use_tqdm=progress,
        ).T

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images.

        Args:
            images: (B, 3, H, W), from ``transform``.

        Returns:
            The image feature as ``encode_image`` gives it, unit length (B, D), and
            the patch tokens v as ``OpenCLIPGenerator`` gives them (B, N, D).
        """
        tower = self.clip.visual
        output = tower.forward_intermediates(
            images, indices=1, normalize_intermediates=True, output_fmt='NLC'
        )
        tokens = output['image_intermediates'][0] @ tower.proj
        return F.normalize(output['image_features'], dim=-1), tokens
