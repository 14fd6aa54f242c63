"""DTM on Tiny ImageNet with OpenAI's CLIP ViT-B/16, on images of 128 pixels.

Rows:      beyond the paper
Stage:     pre-training
Then:      configs/tiny-imagenet/finetune_vit-4x192_10e.py
Hardware:  1 GPU, or any CPU; 128 images
Command:   tools/dist_train.sh configs/tiny-imagenet/openai-clip-dtm_vit-4x192_10e.py 1
"""

_base_ = ['./dtm_vit-4x192_10e.py']

# Crops of 64 pixels are enlarged to 8 x 8 patches of 16. Any CLIP of open_clip will do.
model = dict(
    target_generator=dict(
        model='ViT-B-16-quickgelu', pretrained='openai', model_config=None
    )
)
