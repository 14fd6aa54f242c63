"""DTM with two teachers, CLIP ViT-B/16 and DINOv2 ViT-B/14, 100 epochs.

The losses are added; morphing and head are each teacher's own. The paper has one
teacher, and no number of its tables is this config's; the schedule is carried over.
Rows:      beyond the paper
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/beyond/clip-dinov2-dtm_vit-b_100e.py 8
"""

_base_ = ['../ablation/dtm_vit-b_100e.py']

model = dict(
    type='MultiTeacherDTM',
    more_teachers=dict(
        dinov2=dict(
            target_generator=dict(
                type='TimmGenerator',
                model='vit_base_patch14_dinov2.lvd142m',
                pretrained=True,  # or the path of a local file
            ),
            morphing=_base_.model.morphing,  # of the same kind, on DINOv2's tokens
            head=_base_.model.head,
            weight=1.0,  # beside 1 for CLIP's loss
        )
    ),
)
