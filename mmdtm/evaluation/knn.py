"""k-nearest-neighbour classification of frozen features."""

import torch
import torch.nn.functional as F

# Elements of a block of similarities: 256 MiB in float32.
BLOCK = 2**26


@torch.no_grad()
def knn_predict(
    bank: torch.Tensor,
    bank_labels: torch.Tensor,
    queries: torch.Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> torch.Tensor:
    """Class of each query by its k nearest neighbours in the bank.

    Neighbours are those of the highest cosine similarity s, and vote with the
    weight exp(s / temperature): the rule and defaults of Wu et al., "Unsupervised
    Feature Learning via Non-Parametric Instance Discrimination" (2018), with
    the k = 20 of DINO (arXiv 2104.14294). scikit-learn's ``KNeighborsClassifier``
    with ``metric='cosine'`` and those weights gives the same classes.

    Args:
        bank: (n, D), floating point.
        bank_labels: (n,) int64, from 0.
        queries: (m, D), like ``bank``.
        k: Neighbours; all of the bank if it has fewer.
        temperature: Above 0.

    Returns:
        (m,) int64.

    Raises:
        ValueError: If shapes do not fit, the bank is empty, or ``k`` or
            ``temperature`` is out of range.
    """
    if bank.dim() != 2 or queries.dim() != 2 or bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f'bank is {tuple(bank.shape)} and queries are {tuple(queries.shape)}. Give '
            '(n, D) and (m, D) of the same D.'
        )
    if bank_labels.shape != bank.shape[:1] or not len(bank):
        raise ValueError(
            f'The bank is {tuple(bank.shape)}, its labels {tuple(bank_labels.shape)}. '
            'Give one label per vector and at least one vector.'
        )
    if k < 1 or temperature <= 0:
        raise ValueError(
            f'k is {k} and temperature {temperature}. Give a k of 1 or more and a '
            'temperature above 0.'
        )
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    classes = int(bank_labels.max()) + 1
    predictions = []
    for block in queries.split(max(1, BLOCK // len(bank))):
        similarity, index = (block @ bank.T).topk(min(k, len(bank)), dim=1)
        # Relative to the nearest: the same ratios, and no overflow.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weight.new_zeros(len(block), classes)
        votes.scatter_add_(1, bank_labels[index], weight)
        predictions.append(votes.argmax(1))
    if not predictions:
        return bank_labels.new_zeros(0)
    return torch.cat(predictions)
