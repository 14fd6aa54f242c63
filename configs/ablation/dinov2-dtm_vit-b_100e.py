"""DTM with targets of DINOv2 ViT-B/14; beyond the paper.

Any ViT of timm serves alike: DINOv3, SigLIP, EVA. The crop is resized to the
teacher's 14 x 14 patches.
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/ablation/dinov2-dtm_vit-b_100e.py 8
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
"""

_base_ = ['./dtm_vit-b_100e.py']

model = dict(
    target_generator=dict(
        _delete_=True,
        type='TimmGenerator',
        model='vit_base_patch14_dinov2.lvd142m',
        pretrained=True,  # or the path of a local file
    )
)
