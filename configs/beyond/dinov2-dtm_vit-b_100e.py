"""DTM with targets of DINOv2 ViT-B/14, 100 epochs.

Any ViT of timm serves alike: DINOv3, SigLIP, EVA. The crop is resized to the
teacher's 14 x 14 patches.
Rows:      beyond the paper
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/beyond/dinov2-dtm_vit-b_100e.py 8
"""

_base_ = ['../ablation/dtm_vit-b_100e.py']

model = dict(
    target_generator=dict(
        _delete_=True,
        type='TimmGenerator',
        model='vit_base_patch14_dinov2.lvd142m',
        pretrained=True,  # or the path of a local file
    )
)
